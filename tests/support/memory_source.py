"""A ModelSource whose files are in a dictionary."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from py_engine.errors import MissingFileError, ModelFileFormatError


class MemorySource:
    """Files from `files`: text or bytes by path. `requested` lists the paths that were read."""

    def __init__(self, files: Mapping[str, str | bytes], url: str = "memory:/model/") -> None:
        self.files = dict(files)
        self.url = url
        self.requested: list[str] = []

    async def read_bytes(self, path: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        self.requested.append(path)
        if path not in self.files:
            raise MissingFileError(f"{self.url}{path}: no such file")
        data = self.files[path]
        data = data.encode() if isinstance(data, str) else data
        if on_bytes is not None:
            on_bytes(len(data))
        return data

    async def read_text(self, path: str) -> str:
        return (await self.read_bytes(path)).decode()

    async def read_json(self, path: str) -> Any:
        try:
            return json.loads(await self.read_text(path))
        except ValueError as error:
            raise ModelFileFormatError(f"{path}: {error}") from error
