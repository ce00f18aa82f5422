"""A model's files over HTTP, with the browser's `fetch`.

A file goes into one ArrayBuffer outside Python's memory; only progress comes through Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import js
from pyodide.ffi import JsException

from py_engine.errors import (
    MissingFileError,
    ModelFileFormatError,
    NetworkError,
    TruncatedFileError,
)
from py_engine.storage.source import clean_model_url, parse_json

_MISSING = (404, 410)
_FORBIDDEN = (401, 403)
_UNKNOWN_SIZE_CAPACITY = 1 << 20


class FetchSource:
    """A `ModelSource` over a folder on a web server, or a repository on Hugging Face.

    A relative `url` is resolved against `base_url`, by default the location of the page or worker.
    Cancelling a read aborts its request.
    """

    def __init__(self, url: str, *, base_url: str | None = None) -> None:
        self.url: str = js.URL.new(clean_model_url(url), base_url or js.location.href).href

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file."""
        data = await self.read_bytes(path)
        try:
            return str(js.TextDecoder.new("utf-8", fatal=True).decode(data))
        except JsException as error:
            raise ModelFileFormatError(
                f"{self._address(path)} is not UTF-8 text. Download it again, or repair it."
            ) from error

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file."""
        return parse_json(await self.read_text(path), self._address(path))

    async def read_bytes(self, path: str, on_bytes: Callable[[int], None] | None = None) -> Any:
        """Return a whole file as a JS ArrayBuffer."""
        address = self._address(path)
        controller = js.AbortController.new()
        try:
            response = await _respond(address, controller.signal)
            return await _Body(address, response, on_bytes).read()
        except BaseException:
            controller.abort()
            raise

    def _address(self, path: str) -> str:
        return str(js.URL.new(path, self.url).href)


async def _respond(address: str, signal: Any) -> Any:
    """Fetch until the headers are there. Raises MissingFileError or NetworkError."""
    try:
        response = await js.fetch(address, signal=signal)
    except JsException as error:
        raise NetworkError(
            f"{address} could not be fetched ({_reason(error)}). Check the network and the "
            "address; a server on another host must allow this site (CORS)."
        ) from error
    status = int(response.status)
    if status in _MISSING:
        raise MissingFileError(
            f"{address} does not exist (HTTP {status}). Correct the model's address, "
            "or put the file there."
        )
    if status in _FORBIDDEN:
        raise NetworkError(
            f"{address} is not public (HTTP {status}). Correct the model's address, "
            "or choose a model that needs no login."
        )
    if not response.ok:
        raise NetworkError(
            f"{address} could not be fetched: the server answered HTTP {status}. Try again later."
        )
    return response


class _Body:
    """Collects a response's body in one ArrayBuffer of the announced size."""

    def __init__(self, address: str, response: Any, on_bytes: Callable[[int], None] | None) -> None:
        self._address = address
        self._response = response
        self._on_bytes = on_bytes
        length = response.headers.get("content-length")
        # The length of a compressed body is not that of the file.
        plain = not response.headers.get("content-encoding")
        self._expected = int(length) if length and plain else None
        self._target = js.Uint8Array.new(self._expected or _UNKNOWN_SIZE_CAPACITY)
        self._size = 0

    async def read(self) -> Any:
        """Read to the end. Raises TruncatedFileError or NetworkError."""
        if self._response.body:
            reader = self._response.body.getReader()
            while not (part := await self._next(reader)).done:
                self._append(part.value)
                if self._on_bytes:
                    self._on_bytes(self._size)
        if self._expected is not None and self._size < self._expected:
            raise self._truncated()
        if self._size == self._target.length:
            return self._target.buffer
        return self._target.buffer.slice(0, self._size)

    async def _next(self, reader: Any) -> Any:
        try:
            return await reader.read()
        except JsException as error:
            if self._expected is not None:
                raise self._truncated() from error
            raise NetworkError(
                f"{self._address}: the connection broke after {self._size} bytes "
                f"({_reason(error)}). Check the network and load the model again."
            ) from error

    def _append(self, chunk: Any) -> None:
        end = self._size + chunk.length
        if end > self._target.length:
            # Seen where a server compresses, but hides that from pages of other sites.
            self._expected = None
            larger = js.Uint8Array.new(max(end, 2 * self._target.length))
            larger.set(self._target)
            self._target = larger
        self._target.set(chunk, self._size)
        self._size = end

    def _truncated(self) -> TruncatedFileError:
        return TruncatedFileError(
            f"{self._address} ended after {self._size} of the {self._expected} bytes that its "
            "server announced. Load the model again."
        )


def _reason(error: JsException) -> str:
    return f"{error.name}: {error.message}"
