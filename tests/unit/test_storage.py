"""Model sources: JSON errors, and the folder on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from py_engine.errors import MissingFileError, ModelFileFormatError, TruncatedFileError
from py_engine.storage.folder import FolderSource
from py_engine.storage.source import FileInfo, byte_length, parse_json


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


def test_folder_gives_ranges_sizes_and_a_listing(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(10)))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.bin").write_bytes(b"12")
    source, seen = FolderSource(tmp_path), list[int]()
    assert asyncio.run(source.read_range("a.bin", 3, 6, seen.append)) == b"\x03\x04\x05"
    assert asyncio.run(source.read_range("a.bin", 10, 10)) == b""
    assert seen == [3]
    assert asyncio.run(source.size("sub/b.bin")) == 2
    assert asyncio.run(source.list_files()) == {"a.bin": FileInfo(10), "sub/b.bin": FileInfo(2)}
    with pytest.raises(TruncatedFileError, match=r"a\.bin has 10 bytes, but bytes 8 to 11 were"):
        asyncio.run(source.read_range("a.bin", 8, 11))


def test_folder_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    source = FolderSource(tmp_path / "x.gguf")
    assert (source.url, source.entry) == (f"{tmp_path.as_uri()}/", "x.gguf")
    assert asyncio.run(source.read_bytes(source.entry)) == b"GGUF"
    assert FolderSource(tmp_path).entry == ""


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
