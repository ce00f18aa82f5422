"""The hub: URLs of files and listings, who gets the token, refusals, and the choice of a GGUF."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from py_engine.config import HuggingFaceConfig
from py_engine.errors import (
    AccessDeniedError,
    MissingFileError,
    ModelFileFormatError,
    NetworkError,
    RepositoryNotFoundError,
)
from py_engine.model_address import parse_model_address
from py_engine.storage.http_errors import retry_after, status_error
from py_engine.storage.hub import HubRepository, chosen_gguf, next_page
from py_engine.storage.source import FileInfo

TOKEN = "hf_secret"


def repository(text: str = "a/b", **config: str) -> HubRepository:
    return HubRepository(parse_model_address(text), HuggingFaceConfig(**config))


def test_addresses_of_files_and_of_the_listing() -> None:
    plain = repository()
    assert plain.folder_url == "https://huggingface.co/a/b/resolve/main/"
    assert plain.tree_url == "https://huggingface.co/api/models/a/b/tree/main?recursive=true"
    inner = repository("hf:a/b@refs/pr/1/my folder/")
    assert inner.folder_url == "https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/my%20folder/"
    assert inner.tree_url.endswith("/a/b/tree/refs%2Fpr%2F1/my%20folder?recursive=true")


def test_mirrors_have_an_endpoint_and_a_template() -> None:
    mirror = repository(
        "a/b@v1", endpoint="https://m.org/hub/", path_template="files/{repo}/{revision}"
    )
    assert mirror.folder_url == "https://m.org/hub/files/a/b/v1/"
    assert mirror.is_mirror
    assert not repository(token=TOKEN).is_mirror


def test_token_goes_to_the_endpoint_alone() -> None:
    hub = repository(token=TOKEN)
    assert hub.headers(hub.tree_url) == {"Authorization": "Bearer hf_secret"}
    assert hub.headers(hub.folder_url) == {"Authorization": "Bearer hf_secret"}
    assert hub.headers("https://cdn.huggingface.co/a") == {}
    assert hub.headers("https://huggingface.co.evil.org/a") == {}
    assert hub.headers("http://huggingface.co/a") == {}
    assert repository().headers("https://huggingface.co/") == {}
    assert TOKEN not in repr(HuggingFaceConfig(token=TOKEN))


def test_listing_gives_sizes_and_hashes() -> None:
    entries = [
        {"type": "directory", "path": "sub", "oid": "1", "size": 0},
        {"type": "file", "path": "config.json", "oid": "AB", "size": 3},
        {
            "type": "file",
            "path": "sub/x.bin",
            "oid": "2",
            "size": 130,
            "lfs": {"oid": "CD", "size": 5_000_000_000, "pointerSize": 130},
        },
    ]
    assert repository().files(entries) == {
        "config.json": FileInfo(3, None, "ab"),
        "sub/x.bin": FileInfo(5_000_000_000, "cd"),
    }
    assert repository("hf:a/b/sub").files(entries) == {"x.bin": FileInfo(5_000_000_000, "cd")}
    with pytest.raises(ModelFileFormatError, match=r"api/models/a/b/tree.*entries is \{"):
        repository().files({"error": "no"})


def test_listing_goes_on_at_the_linked_page() -> None:
    link = '<https://huggingface.co/api/models/a/b/tree/main?cursor=X&limit=1>; rel="next"'
    assert next_page(link) == "https://huggingface.co/api/models/a/b/tree/main?cursor=X&limit=1"
    assert next_page('<https://h.co/>; rel="prev"') is None
    assert next_page(None) is None


@pytest.mark.parametrize(
    ("status", "code", "token", "message"),
    [
        (
            401,
            "GatedRepo",
            "",
            r"is gated\. Accept its conditions on that page, then set AppConfig",
        ),
        (403, "GatedRepo", TOKEN, r"the access token's account has not accepted its conditions"),
        (401, "RepoNotFound", "", r"private, gated, or does not exist\. Correct the name.*or set"),
        (401, None, TOKEN, r"cannot be read with this access token: it is not valid"),
    ],
)
def test_refusals_say_what_to_do(status: int, code: str | None, token: str, message: str) -> None:
    hub = repository(token=token)
    refusal = hub.explained(status_error(hub.folder_url, status, {}.get), code)
    assert isinstance(refusal, AccessDeniedError)
    assert refusal.status == status
    assert str(refusal).startswith("https://huggingface.co/a/b ")
    assert TOKEN not in str(refusal)
    with pytest.raises(AccessDeniedError, match=message):
        raise refusal


def test_missing_revision_repository_and_file() -> None:
    hub = repository("a/b@v9")
    missing = status_error(f"{hub.folder_url}x.bin", 404, {}.get)
    assert isinstance(missing, MissingFileError)
    for code, message in (
        ("RevisionNotFound", "no revision 'v9'"),
        ("RepoNotFound", "Correct the repository's owner"),
    ):
        explained = hub.explained(missing, code)
        assert isinstance(explained, RepositoryNotFoundError)
        assert message in str(explained)
    assert hub.explained(missing, "EntryNotFound") is missing


def test_errors_of_a_server_tell_when_to_come_back() -> None:
    error = status_error("https://x.org/a?sig=secret", 503, {"retry-after": "7"}.get)
    assert isinstance(error, NetworkError)
    assert (error.status, error.retry_after_s) == (503, 7.0)
    assert "secret" not in str(error)
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < retry_after(soon) <= 90
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("soon") == retry_after(None) == 0


FILES = {
    path: FileInfo(1)
    for path in (
        "README.md",
        "x-Q4_0.gguf",
        "x-Q4_K_M-00001-of-00002.gguf",
        "x-Q4_K_M-00002-of-00002.gguf",
        "x-Q4_K_S.gguf",
        "mmproj-x-Q8_0.gguf",
    )
}


@pytest.mark.parametrize(
    ("quantization", "chosen"),
    [
        ("", "x-Q4_K_M-00001-of-00002.gguf"),
        ("q4_0", "x-Q4_0.gguf"),
        ("Q4_K_S", "x-Q4_K_S.gguf"),
    ],
)
def test_gguf_file_of_a_repository(quantization: str, chosen: str) -> None:
    assert chosen_gguf(FILES, quantization, "a/b") == chosen


def test_no_gguf_file_is_chosen_beside_another_format_unless_it_is_asked_for() -> None:
    both = FILES | {"config.json": FileInfo(1)}
    assert chosen_gguf(both, "", "a/b") == ""
    assert chosen_gguf(both, "Q4_0", "a/b") == "x-Q4_0.gguf"
    assert chosen_gguf({"README.md": FileInfo(1)}, "", "a/b") == ""
    assert chosen_gguf({"only.gguf": FileInfo(1)}, "", "a/b") == "only.gguf"
    with pytest.raises(MissingFileError, match=r"a/b has no GGUF file.*'Q4_K'.*x-Q4_0\.gguf, x-Q4"):
        chosen_gguf(FILES, "Q4_K", "a/b")
