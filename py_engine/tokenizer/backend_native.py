"""The Rust crate `tokenizers` as PyPI's package of that name (CPython)."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers


class NativeBackend:
    """Encodes and decodes with PyPI's `tokenizers`."""

    def __init__(self, json_text: str) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(json_text)

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens in it are parsed, none are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens included."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def destroy(self) -> None:
        """Do nothing: the library frees its memory by itself."""


async def open_backend(json_text: str) -> NativeBackend:
    """Return the backend for a tokenizer.json. Errors: any exception for one it cannot read."""
    return NativeBackend(json_text)
