"""Model sources: addresses, JSON errors, and the folder on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from py_engine.errors import MissingFileError, ModelFileFormatError
from py_engine.storage.folder import FolderSource
from py_engine.storage.source import byte_length, clean_model_url, parse_json

HF = "https://huggingface.co/mlc-ai/X"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (HF, f"{HF}/resolve/main/"),
        (f"{HF}/", f"{HF}/resolve/main/"),
        (f"{HF}/resolve/main/", f"{HF}/resolve/main/"),
        (f"{HF}/resolve/v1", f"{HF}/resolve/v1/"),
        ("https://hf-mirror.com/a/b", "https://hf-mirror.com/a/b/resolve/main/"),
        ("https://example.org/models/X", "https://example.org/models/X/"),
        ("http://localhost:8000/huggingface.co/X", "http://localhost:8000/huggingface.co/X/"),
        ("models/X", "models/X/"),
        ("/models/X/", "/models/X/"),
    ],
)
def test_clean_model_url(url: str, expected: str) -> None:
    assert clean_model_url(url) == expected


def test_parse_json_names_line_and_column() -> None:
    assert parse_json('{"a": [1]}', "a.json") == {"a": [1]}
    with pytest.raises(ModelFileFormatError, match=r"^a\.json is not valid .* line 2, column 9\."):
        parse_json('{"a": 1,\n "b": 1 2}', "a.json")


def test_parse_json_recognises_a_web_page() -> None:
    with pytest.raises(ModelFileFormatError, match=r"The server sent a web page instead"):
        parse_json("<!doctype html><title>404</title>", "a.json")


def test_byte_length() -> None:
    class ArrayBuffer:
        byteLength = 7

    assert byte_length(b"abc") == 3
    assert byte_length(ArrayBuffer()) == 7


def test_folder_reads_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": "ü"}', encoding="utf-8")
    (tmp_path / "b.bin").write_bytes(b"\xff\x00")
    source, seen = FolderSource(tmp_path), list[int]()
    assert asyncio.run(source.read_text("a.json")) == '{"a": "ü"}'
    assert asyncio.run(source.read_json("a.json")) == {"a": "ü"}
    assert asyncio.run(source.read_bytes("b.bin", seen.append)) == b"\xff\x00"
    assert seen == [2]
    assert source.url == f"{tmp_path.as_uri()}/"


@pytest.mark.parametrize("path", ["none.json", "folder", "a.json/b"])
def test_folder_without_the_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingFileError, match=rf"{path} does not exist\. Put the"):
        asyncio.run(FolderSource(tmp_path).read_bytes(path))


def test_folder_with_damaged_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ModelFileFormatError, match=r"a\.json is not UTF-8 text: byte 7 is invalid"):
        asyncio.run(FolderSource(tmp_path).read_json("a.json"))
    with pytest.raises(ModelFileFormatError, match=r"b\.json is not valid JSON"):
        asyncio.run(FolderSource(tmp_path).read_json("b.json"))
