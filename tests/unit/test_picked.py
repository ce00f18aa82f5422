"""What a user picked, as pairs of path and File: the shapes in which browsers give it."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.errors import ConfigurationFieldError
from py_engine.storage.picked import local_address, picked_entries


class File:
    def __init__(self, name: str, path: str = "") -> None:
        self.name = name
        self.webkitRelativePath = path
        self.size = 3

    def slice(self) -> None: ...


class Handle:
    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind


class FileList:
    def __init__(self, *files: File) -> None:
        self._files = files
        self.length = len(files)

    def __getitem__(self, index: int) -> File:
        return self._files[index]


GGUF, CONFIG = File("x.gguf"), File("config.json", "model/config.json")
DEEP = File("x.bin", "model/sub/x.bin")
FOLDER, HANDLE = Handle("model", "directory"), Handle("x.gguf", "file")


@pytest.mark.parametrize(
    ("picked", "entries"),
    [
        (GGUF, [("x.gguf", GGUF)]),
        ([GGUF], [("x.gguf", GGUF)]),
        (FileList(CONFIG, DEEP), [("config.json", CONFIG), ("sub/x.bin", DEEP)]),
        (FOLDER, [("", FOLDER)]),
        (HANDLE, [("x.gguf", HANDLE)]),
        ((HANDLE, GGUF), [("x.gguf", HANDLE), ("x.gguf", GGUF)]),
        ([("mine.gguf", GGUF)], [("mine.gguf", GGUF)]),
        ([["sub/mine.gguf", GGUF]], [("sub/mine.gguf", GGUF)]),
    ],
)
def test_shapes_of_what_was_picked(picked: Any, entries: list[tuple[str, Any]]) -> None:
    assert picked_entries(picked) == entries
    assert picked_entries(entries) == entries


@pytest.mark.parametrize(
    ("picked", "message"),
    [
        ([], "nothing was picked"),
        (FileList(), "nothing was picked"),
        (["x.gguf"], "'x.gguf' is neither a File nor a file system handle"),
        ([("a", "b")], "'b' is neither a File"),
    ],
)
def test_what_cannot_be_registered(picked: Any, message: str) -> None:
    with pytest.raises(ConfigurationFieldError, match=f"^files: {message}"):
        picked_entries(picked)


def test_names_of_local_files() -> None:
    assert local_address("my model") == "local:my model"
    for name in ("", " ", None):
        with pytest.raises(ConfigurationFieldError, match=r"loaded as local:NAME"):
            local_address(name)  # type: ignore[arg-type]
