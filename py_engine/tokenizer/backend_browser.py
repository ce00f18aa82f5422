"""The Rust crate `tokenizers` as npm's `@mlc-ai/web-tokenizers` (wasm, in the browser)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import js
import pywebllm_worker
from pyodide.ffi import JsException, to_js

from py_engine.errors import NetworkError


class BrowserBackend:
    """Encodes and decodes with `@mlc-ai/web-tokenizers`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens in it are parsed, none are added."""
        ids: list[int] = self._tokenizer.encode(text).to_py().tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens included."""
        text: str = self._tokenizer.decode(to_js(list(ids)))
        return text

    def destroy(self) -> None:
        """Free the wasm memory of the tokenizer, which no garbage collector does."""
        self._tokenizer.dispose()


async def open_backend(json_text: str) -> BrowserBackend:
    """Return the backend for a tokenizer.json.

    Errors: NetworkError without the library, JsException for a file that it cannot read.
    """
    try:
        library = await pywebllm_worker.loadTokenizers()
    except JsException as error:
        raise NetworkError(
            f"The tokenizers library could not be loaded ({error.message}). Check the network, and "
            "that the site was copied with all its files, then load the model again."
        ) from error
    data = js.TextEncoder.new().encode(json_text)
    return BrowserBackend(await library.Tokenizer.fromJSON(data.buffer))
