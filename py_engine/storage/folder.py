"""A model's files in a local folder, for CPython."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from py_engine.errors import MissingFileError, ModelFileFormatError
from py_engine.storage.source import parse_json


class FolderSource:
    """A `ModelSource` over a folder on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        """The folder's `file:` address."""
        return f"{self._folder.resolve().as_uri()}/"

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file."""
        data = await self.read_bytes(path)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelFileFormatError(
                f"{self._folder / path} is not UTF-8 text: byte {error.start} is invalid. "
                "Download the file again, or repair it."
            ) from error

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file."""
        return parse_json(await self.read_text(path), str(self._folder / path))

    async def read_bytes(self, path: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """Return a whole file."""
        try:
            data = (self._folder / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise MissingFileError(
                f"{self._folder / path} does not exist. Put the model's file there, "
                "or correct the folder."
            ) from error
        if on_bytes:
            on_bytes(len(data))
        return data
