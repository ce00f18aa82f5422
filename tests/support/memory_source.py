"""A ModelSource whose files are in a dictionary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from py_engine.errors import MissingFileError, ModelFileFormatError
from py_engine.storage.source import FileInfo, range_too_long


class MemorySource:
    """Files from `files`: text or bytes by path. `requested` lists the paths that were read."""

    def __init__(
        self, files: Mapping[str, str | bytes], url: str = "memory:/model/", entry: str = ""
    ) -> None:
        self.files = dict(files)
        self.url = url
        self.entry = entry
        self.requested: list[str] = []

    async def read_bytes(self, path: str, on_bytes: Callable[[int], object] | None = None) -> bytes:
        self.requested.append(path)
        data = self._data(path)
        if on_bytes is not None:
            on_bytes(len(data))
        return data

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: Callable[[int], object] | None = None
    ) -> bytes:
        self.requested.append(path)
        data = self._data(path)
        if end > len(data):
            raise range_too_long(f"{self.url}{path}", begin, end, len(data))
        if on_bytes is not None:
            on_bytes(end - begin)
        return data[begin:end]

    async def read_text(self, path: str) -> str:
        return (await self.read_bytes(path)).decode()

    async def read_json(self, path: str) -> Any:
        try:
            return json.loads(await self.read_text(path))
        except ValueError as error:
            raise ModelFileFormatError(f"{path}: {error}") from error

    async def size(self, path: str) -> int:
        return len(self._data(path))

    async def list_files(self) -> dict[str, FileInfo]:
        return {
            path: FileInfo(len(data), hashlib.sha256(data).hexdigest())
            for path, data in ((path, self._data(path)) for path in self.files)
        }

    def _data(self, path: str) -> bytes:
        if path not in self.files:
            raise MissingFileError(f"{self.url}{path}: no such file")
        data = self.files[path]
        return data.encode() if isinstance(data, str) else data
