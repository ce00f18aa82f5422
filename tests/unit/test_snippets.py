"""The headers of the gallery's snippets, and that each example of WebLLM has its snippet."""

from __future__ import annotations

from pathlib import Path

import pytest

from py_engine.tooling import snippets
from py_engine.tooling.snippets import FOLDER, gallery_index, read_snippet, read_snippets
from py_engine.tooling.steps import ROOT, SetupError

HEADER = (
    '"""A title\n\nWhat it\nshows.\n\nSection: Models\nWebLLM: a b\nDocs: api.md\nTypes: py\n"""'
)

# The folders of WebLLM's examples/ in 0.2.86 that a snippet stands for.
EXAMPLES = {
    *("abort-reload", "cache-usage", "embeddings", "function-calling", "get-started"),
    *("get-started-latency-breakdown", "get-started-web-worker", "integrity-verification"),
    *("json-mode", "json-schema", "logit-processor", "multi-models", "multi-round-chat", "qwen3"),
    *(
        "seed-to-reproduce",
        "service-worker",
        "simple-chat-upload",
        "streaming",
        "structural-tag-tool-use",
    ),
    "text-completion",
}


def test_a_header(tmp_path: Path) -> None:
    file = tmp_path / "some_name.py"
    file.write_text(HEADER)
    found = read_snippet(file)
    assert (found.name, found.title, found.description) == (
        "some_name",
        "A title",
        "What it shows.",
    )
    assert (found.section, found.webllm, found.docs) == ("Models", ["a", "b"], ["api.md"])
    assert found.types == ["py"]
    file.write_text(HEADER.replace("Types: py\n", ""))
    assert read_snippet(file).types == ["mpy", "py"]


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("Section: Models\n", "", "Section"),
        ("Models", "Toys", "Section"),
        ("Docs", "Dogs", "lines of"),
        ("What it\nshows.\n\n", "", "description"),
        (HEADER, "1", "title"),
    ],
)
def test_a_wrong_header_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, cause: str
) -> None:
    monkeypatch.setattr(snippets, "ROOT", tmp_path)
    file = tmp_path / "wrong.py"
    file.write_text(HEADER.replace(old, new))
    with pytest.raises(SetupError, match=rf"wrong\.py.*{cause}"):
        read_snippet(file)


def test_headers_name_documents_that_exist() -> None:
    for snippet in read_snippets():
        assert snippet.docs
        for name in snippet.docs:
            assert (ROOT / "docs" / name).is_file(), snippet


def test_each_example_of_webllm_has_a_snippet() -> None:
    assert {name for snippet in read_snippets() for name in snippet.webllm} == EXAMPLES


def test_the_index_has_all_snippets_by_section() -> None:
    index = gallery_index()
    assert [section["title"] for section in index] == list(snippets.SECTIONS)
    names = [snippet["name"] for section in index for snippet in section["snippets"]]
    assert sorted(names) == sorted(path.stem for path in FOLDER.glob("*.py"))
    assert names[0] == "get_started"
