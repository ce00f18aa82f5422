"""A model's files in a local folder, for CPython."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from py_engine.errors import MissingFileError
from py_engine.storage.source import FileInfo, OnBytes, decode_text, parse_json, range_too_long


class FolderSource:
    """A `ModelSource` over a folder on disk, or over one file of it."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent if path.is_file() else path
        self.entry = path.name if path.is_file() else ""

    @property
    def url(self) -> str:
        """The folder's `file:` address."""
        return f"{self._folder.resolve().as_uri()}/"

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file."""
        return decode_text(await self.read_bytes(path), str(self._folder / path))

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file."""
        return parse_json(await self.read_text(path), str(self._folder / path))

    async def read_bytes(self, path: str, on_bytes: OnBytes | None = None) -> bytes:
        """Return a whole file."""
        data = self._file(path).read_bytes()
        if on_bytes:
            on_bytes(len(data))
        return data

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: OnBytes | None = None
    ) -> bytes:
        """Return the bytes of a file from `begin` up to `end`."""
        file = self._file(path)
        with file.open("rb") as stream:
            stream.seek(begin)
            data = stream.read(end - begin)
        if len(data) < end - begin:
            raise range_too_long(str(file), begin, end, file.stat().st_size)
        if on_bytes:
            on_bytes(len(data))
        return data

    async def size(self, path: str) -> int:
        """Return a file's length in bytes."""
        return self._file(path).stat().st_size

    async def list_files(self) -> dict[str, FileInfo]:
        """Return the files of the folder and of those in it."""
        return {
            path.relative_to(self._folder).as_posix(): FileInfo(path.stat().st_size)
            for path in sorted(self._folder.rglob("*"))
            if path.is_file()
        }

    def _file(self, path: str) -> Path:
        file = self._folder / path
        if not file.is_file():
            raise MissingFileError(
                f"{file} does not exist. Put the model's file there, or correct the folder."
            )
        return file
