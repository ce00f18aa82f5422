"""The tokenizer's files of a GGUF model, which are not files: they are made from its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from py_engine.errors import MissingFileError
from py_engine.storage.source import FileInfo, HostBytes, ModelSource, OnBytes
from py_engine.weights.gguf import GgufFile
from py_engine.weights.gguf_tokenizer import gguf_tokenizer_config, gguf_tokenizer_json
from py_engine.weights.gguf_vocabulary import Vocabulary

_MADE: Mapping[str, Callable[[Mapping[str, Any], str, Vocabulary], str]] = {
    "tokenizer.json": gguf_tokenizer_json,
    "tokenizer_config.json": lambda *arguments: json.dumps(gguf_tokenizer_config(*arguments)),
}


class GgufTokenizerSource:
    """A `ModelSource` with tokenizer.json and tokenizer_config.json, beside which nothing exists.

    Errors of the readers: MissingFileError, and those of `gguf_tokenizer_json`.
    """

    entry = ""

    def __init__(self, source: ModelSource, file: GgufFile) -> None:
        self._source = source
        self._file = file

    @property
    def url(self) -> str:
        """The address of the GGUF file's folder."""
        return self._source.url

    async def read_text(self, path: str) -> str:
        """Return one of the two files."""
        make = _MADE.get(path)
        if make is None:
            raise self._missing(path)
        file = self._file
        return make(file.metadata, self.url + file.path, file.vocabulary)

    async def read_json(self, path: str) -> Any:
        """Return one of the two files, parsed."""
        return json.loads(await self.read_text(path))

    async def read_bytes(self, path: str, on_bytes: OnBytes | None = None) -> HostBytes:
        """Refuse: what is read as bytes is no text of a tokenizer."""
        raise self._missing(path)

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: OnBytes | None = None
    ) -> HostBytes:
        """Refuse, as `read_bytes`."""
        raise self._missing(path)

    async def size(self, path: str) -> int:
        """Return the length of one of the two files in bytes."""
        return len((await self.read_text(path)).encode())

    async def list_files(self) -> dict[str, FileInfo]:
        """Return both files."""
        return {path: FileInfo(await self.size(path)) for path in _MADE}

    def _missing(self, path: str) -> MissingFileError:
        return MissingFileError(
            f"{self.url}{self._file.path} is one file with everything in it and has no {path}. "
            "Choose the model's safetensors if you need that file."
        )
