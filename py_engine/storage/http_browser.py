"""One file over HTTP with the browser's `fetch`, into one ArrayBuffer outside Python's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import js
from pyodide.ffi import JsException, to_js

from py_engine.errors import CrossOriginError, ModelFileError, NetworkError, TruncatedFileError
from py_engine.storage.http_errors import Headers, shown_address
from py_engine.storage.source import OnBytes

_UNKNOWN_SIZE_CAPACITY = 1 << 20

Refusal = Callable[[int, Headers], ModelFileError]
"""Returns the error for an answer's status and headers."""


class Request:
    """GETs one address; used as a context manager, which aborts what was not read to its end.

    `cache` is `fetch`'s option: what the browser's HTTP cache may do.
    """

    def __init__(self, address: str, headers: Mapping[str, str], *, cache: str = "default") -> None:
        self.address = shown_address(address)
        self._address = address
        self._headers = headers
        self._cache = cache
        self._controller = js.AbortController.new()

    def __enter__(self) -> Request:
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.abort()

    async def respond(self, refusal: Refusal, *, accepted: tuple[int, ...] = ()) -> Any:
        """Return the response once its headers are there; statuses `accepted` are no errors.

        Errors: NetworkError's classes; what `refusal` returns for another status.
        """
        try:
            response = await js.fetch(
                self._address,
                headers=to_js(dict(self._headers), dict_converter=js.Object.fromEntries),
                cache=self._cache,
                referrerPolicy="no-referrer",
                signal=self._controller.signal,
            )
        except JsException as error:
            if self._is_extensions_own():  # there, a file that is missing is not answered at all
                raise refusal(404, lambda name: None) from error
            raise await self._unanswered(error) from error
        if not response.ok and int(response.status) not in accepted:
            raise refusal(int(response.status), lambda name: header(response, name))
        return response

    def _is_extensions_own(self) -> bool:
        here = js.location
        is_extension = str(here.protocol).endswith("-extension:")
        return is_extension and js.URL.new(self._address).origin == here.origin

    async def _unanswered(self, error: JsException) -> NetworkError:
        """Say why `fetch` failed, which browsers do not tell scripts."""
        if js.location.protocol == "https:" and _is_insecure(self._address):
            return NetworkError(
                f"{self.address} could not be fetched: a page on https may not load from http. "
                "Serve the model over https."
            )
        if js.URL.new(self._address).origin != js.location.origin and await self._is_there():
            return CrossOriginError(
                f"{self.address} is there, but its server does not let pages of "
                f"{js.location.origin} read it (CORS). The server must allow this site with the "
                "header Access-Control-Allow-Origin; else put the files on this site, or pick them "
                "as local files."
            )
        return NetworkError(
            f"{self.address} could not be fetched ({_reason(error)}). Check the network and the "
            "address."
        )

    async def _is_there(self) -> bool:
        """Whether the server answers a request that need not be allowed and tells nothing."""
        try:
            await js.fetch(
                self._address,
                method="HEAD",
                mode="no-cors",
                referrerPolicy="no-referrer",
                signal=self._controller.signal,
            )
        except JsException:
            return False
        return True


class Body:
    """Collects `size` bytes of a response's body from byte `skip` on, or all there are (None)."""

    def __init__(
        self,
        address: str,
        response: Any,
        *,
        skip: int = 0,
        size: int | None,
        on_bytes: OnBytes | None,
    ) -> None:
        self._address = address
        self._response = response
        self._on_bytes = on_bytes
        self._skip = skip
        self._wanted = size
        self._announced = announced_length(response)
        expected = self._announced if size is None else size
        self._target = js.Uint8Array.new(_UNKNOWN_SIZE_CAPACITY if expected is None else expected)
        self._size = 0

    async def read(self) -> Any:
        """Read to the end. Raises TruncatedFileError or NetworkError."""
        if self._response.body:
            reader = self._response.body.getReader()
            while self._size != self._wanted and not (part := await self._next(reader)).done:
                self._take(part.value)
                if self._on_bytes:
                    self._on_bytes(self._size)
        expected = self._announced if self._wanted is None else self._wanted
        if expected is not None and self._size < expected:
            raise self._truncated(expected)
        if self._size == self._target.length:
            return self._target.buffer
        return self._target.buffer.slice(0, self._size)

    async def _next(self, reader: Any) -> Any:
        try:
            return await reader.read()
        except JsException as error:
            if self._announced is not None and self._wanted is None:
                raise self._truncated(self._announced) from error
            raise NetworkError(
                f"{self._address}: the connection broke after {self._size} bytes "
                f"({_reason(error)}). Check the network and load the model again."
            ) from error

    def _take(self, chunk: Any) -> None:
        skipped = min(self._skip, chunk.length)
        self._skip -= skipped
        if self._wanted is not None:
            chunk = chunk.subarray(skipped, skipped + self._wanted - self._size)
        end = self._size + chunk.length
        if end > self._target.length:
            # Seen where a server compresses, but hides that from pages of other sites.
            self._announced = None
            larger = js.Uint8Array.new(max(end, 2 * self._target.length))
            larger.set(self._target)
            self._target = larger
        self._target.set(chunk, self._size)
        self._size = end

    def _truncated(self, expected: int) -> TruncatedFileError:
        return TruncatedFileError(
            f"{self._address} ended after {self._size} of the {expected} bytes that its "
            "server announced. Load the model again."
        )


def header(response: Any, name: str) -> str | None:
    """Return a response's header; None where there is none, or scripts may not see it."""
    return response.headers.get(name) or None  # JavaScript's null is not None


def announced_length(response: Any) -> int | None:
    """Return the length of the file, or of its part, that a response brings; None: not known."""
    length = header(response, "content-length")
    # The length of a compressed body is not that of the file.
    plain = header(response, "content-encoding") is None
    return int(length) if length and plain else None


def _is_insecure(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def _reason(error: JsException) -> str:
    return f"{error.name}: {error.message}"
