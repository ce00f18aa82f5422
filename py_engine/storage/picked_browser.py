"""A model's files that a user picked: Files and file system handles, read where they lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from pyodide.ffi import JsException

from py_engine.errors import MissingFileError, ModelFileError
from py_engine.storage.bytes_browser import text_of
from py_engine.storage.hub import chosen_gguf
from py_engine.storage.picked import local_address
from py_engine.storage.source import FileInfo, HostBytes, OnBytes, parse_json, range_too_long


async def open_picked(name: str, entries: Iterable[tuple[str, Any]]) -> PickedSource:
    """Return a source over picked files (`picked_entries`); folders are walked now.

    Errors: MissingFileError when there are no files in them, ModelFileError when one cannot be
    read.
    """
    files: dict[str, Any] = {}
    for path, item in entries:
        try:
            files |= {inner: file async for inner, file in _files(path, item)}
        except JsException as error:
            raise _unreadable(f"{local_address(name)}/{path}", error) from error
    if not files:
        raise MissingFileError(
            f"{local_address(name)}: the folder that was picked has no files. Pick the one with "
            "the model's config.json or mlc-chat-config.json, or a .gguf file."
        )
    return PickedSource(name, files)


class PickedSource:
    """A `ModelSource` over JavaScript Files by path. Nothing of them is copied or stored.

    `entry` is the GGUF file, where there is one and no other model beside it.
    """

    def __init__(self, name: str, files: Mapping[str, Any]) -> None:
        self._files = files
        self.url = f"{local_address(name)}/"
        sizes = {path: FileInfo(int(file.size)) for path, file in files.items()}
        self.entry = chosen_gguf(sizes, "", self.url)
        self._sizes = sizes

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file."""
        return text_of(await self.read_bytes(path), f"{self.url}{path}")

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file."""
        return parse_json(await self.read_text(path), f"{self.url}{path}")

    async def read_bytes(self, path: str, on_bytes: OnBytes | None = None) -> HostBytes:
        """Return a whole file as a JS ArrayBuffer."""
        return await self.read_range(path, 0, await self.size(path), on_bytes)

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: OnBytes | None = None
    ) -> HostBytes:
        """Return a part of a file as a JS ArrayBuffer."""
        file = self._file(path)
        if end > file.size:
            raise range_too_long(f"{self.url}{path}", begin, end, int(file.size))
        try:
            data = await file.slice(begin, end).arrayBuffer()
        except JsException as error:
            raise _unreadable(f"{self.url}{path}", error) from error
        if on_bytes:
            on_bytes(end - begin)
        return data

    async def size(self, path: str) -> int:
        """Return a file's length in bytes."""
        return int(self._file(path).size)

    async def list_files(self) -> dict[str, FileInfo]:
        """Return all files by path."""
        return self._sizes

    def _file(self, path: str) -> Any:
        if path not in self._files:
            some = ", ".join(sorted(self._files)[:5])
            raise MissingFileError(
                f"{self.url}{path} is not among the files that were picked ({some}). Pick the "
                "whole folder of the model."
            )
        return self._files[path]


async def _files(path: str, item: Any) -> AsyncIterator[tuple[str, Any]]:
    """Yield the files of a File or handle by path; hidden ones are left out of folders."""
    kind = getattr(item, "kind", None)
    if kind is None:
        yield path, item
    elif kind == "file":
        yield path, await item.getFile()
    else:
        entries = item.values()
        while not (entry := await entries.next()).done:
            inner = str(entry.value.name)
            if not inner.startswith("."):
                async for found in _files(f"{path}/{inner}".lstrip("/"), entry.value):
                    yield found


def _unreadable(address: str, error: JsException) -> ModelFileError:
    return ModelFileError(
        f"{address} cannot be read any more ({error.name}: {error.message}). It was changed, moved "
        "or removed since it was picked, or the permission ended: pick it again."
    )
