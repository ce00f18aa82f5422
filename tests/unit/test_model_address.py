"""What users write as a model's address."""

from __future__ import annotations

import pytest

from py_engine.errors import ConfigurationFieldError
from py_engine.model_address import ModelAddress, is_address, parse_model_address

REPOSITORY = ModelAddress("hub", "a/b")
HUB = "https://huggingface.co"


def hub(entry: str = "", **fields: str) -> ModelAddress:
    return ModelAddress("hub", "a/b", entry, **fields)


@pytest.mark.parametrize(
    "text",
    [
        # C1 of WebLLM's conformance: cleanModelUrl.
        f"{HUB}/a/b",
        f"{HUB}/a/b/",
        f"{HUB}/a/b/resolve/main",
        f"{HUB}/a/b/resolve/main/",
        "https://www.huggingface.co/a/b",
        "https://hf.co/a/b/tree/main",
        "hf:a/b",
        "hf://a/b",
        " a/b ",
    ],
)
def test_a_repository_has_many_spellings(text: str) -> None:
    assert parse_model_address(text) == REPOSITORY


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a/b@v1.0", hub(revision="v1.0")),
        ("hf:a/b@refs/pr/1", hub(revision="refs/pr/1")),
        (f"{HUB}/a/b/resolve/v1", hub(revision="v1")),
        (f"{HUB}/a/b/tree/refs%2Fpr%2F1", hub(revision="refs/pr/1")),
        (f"{HUB}/a/b/tree/refs/pr/1/sub", hub(revision="refs/pr/1", folder="sub/")),
        ("a/b:Q4_K_M", hub(quantization="Q4_K_M")),
        ("hf:a/b@v1:IQ2_XS", hub(revision="v1", quantization="IQ2_XS")),
        ("hf:a/b/x.gguf", hub("x.gguf")),
        ("hf:a/b@v1/sub/x.GGUF", hub("x.GGUF", revision="v1", folder="sub/")),
        ("hf:a/b/sub/deeper/", hub(folder="sub/deeper/")),
        (f"{HUB}/a/b/blob/main/x.gguf?download=true", hub("x.gguf")),
        (f"{HUB}/a/b/tree/main/my%20folder/", hub(folder="my folder/")),
    ],
)
def test_revisions_files_and_folders_of_a_repository(text: str, address: ModelAddress) -> None:
    assert parse_model_address(text) == address


@pytest.mark.parametrize(
    ("text", "place", "entry", "query"),
    [
        ("https://example.org/models/X", "https://example.org/models/X/", "", ""),
        ("https://example.org/X/resolve/v1/", "https://example.org/X/resolve/v1/", "", ""),
        ("https://example.org/", "https://example.org/", "", ""),
        ("https://example.org/X?key=1#top", "https://example.org/X/", "", "?key=1"),
        ("https://example.org/a%20b.gguf?key=1", "https://example.org/", "a b.gguf", "?key=1"),
        ("http://h:80/huggingface.co/X", "http://h:80/huggingface.co/X/", "", ""),
        ("chrome-extension://abc/X", "chrome-extension://abc/X/", "", ""),
        ("models/X", "models/X/", "", ""),
        ("a/b/", "a/b/", "", ""),
        ("a/b/c", "a/b/c/", "", ""),
        ("a/b.gguf", "a/", "b.gguf", ""),
        ("b.gguf", "", "b.gguf", ""),
        ("./a/b", "./a/b/", "", ""),
        ("../b", "../b/", "", ""),
        ("/models/X/", "/models/X/", "", ""),
    ],
)  # fmt: skip
def test_folders_and_files_of_a_web_server(text: str, place: str, entry: str, query: str) -> None:
    assert parse_model_address(text) == ModelAddress("web", place, entry, query=query)


def test_addresses_under_the_endpoint_are_of_its_repositories() -> None:
    mirror = "https://mirror.org/hf"
    assert parse_model_address(f"{mirror}/a/b/resolve/v1/", mirror) == hub(revision="v1")
    assert parse_model_address(f"{mirror}/a/b", f"{mirror}/") == REPOSITORY
    assert parse_model_address("https://mirror.org/a/b", mirror).kind == "web"


def test_local_files_have_a_name() -> None:
    assert parse_model_address("local:My model.gguf") == ModelAddress("local", "My model.gguf")


@pytest.mark.parametrize(
    "text",
    ["", "hf:a", "hf:a/../b", "hf:a/b@", f"{HUB}/a", f"{HUB}/a/b/settings", "javascript:alert(1)"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationFieldError, match=r"no model's address\. Give a repository"):
        parse_model_address(text)


def test_addresses_are_told_from_ids() -> None:
    for text in ("a/b", "hf:a/b", "https://x.org/m", "./m/", "local:m"):
        assert is_address(text)
    for text in ("Qwen3-0.6B-q4f16_1-MLC", "gemma-2-2b-it-q4f16_1-MLC-1k", "model"):
        assert not is_address(text)
