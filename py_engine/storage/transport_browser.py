"""`Transport` with the browser's `fetch`."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import Any

import js
import pywebllm_worker
from pyodide.ffi import JsException

from py_engine.errors import NetworkError
from py_engine.storage import http_browser
from py_engine.storage.source import HostBytes, OnBytes
from py_engine.storage.transport import BodyBrokenError, Request

_RANGE_NOT_SATISFIABLE = 416

_CHUNK_BYTES = 1 << 20
"""The most that is read at once where readers fill buffers, which they lose with a connection."""


class FetchTransport:
    """Implements `transport.Transport`. Bodies become ArrayBuffers outside Python's memory."""

    async def get(
        self, request: Request, begin: int | None, end: int, stall_s: float
    ) -> FetchResponse:
        """Ask for a range or for the whole file."""
        ranges = {} if begin is None else {"Range": f"bytes={begin}-{end - 1}"}
        # The HTTP cache would keep all bytes twice, and let ranges of one file wait for each other.
        sent = http_browser.Request(request.url, {**request.headers, **ranges}, cache="no-store")
        with ExitStack() as transfer:
            transfer.enter_context(sent)
            refusal = partial(request.refusal, request.shown)
            try:
                async with asyncio.timeout(stall_s):
                    response = await sent.respond(refusal, accepted=(_RANGE_NOT_SATISFIABLE,))
            except TimeoutError as error:
                raise NetworkError(
                    f"{request.shown} could not be fetched: its server did not answer in "
                    f"{stall_s:.0f} s. Check the network and load the model again."
                ) from error
            return FetchResponse(response, stall_s, transfer.pop_all())


class FetchResponse:
    """Implements `transport.Response`; `transfer` aborts the request when it is closed."""

    def __init__(self, response: Any, stall_s: float, transfer: ExitStack) -> None:
        self.status = int(response.status)
        self._response = response
        self._reader, self._fills_buffers = _reader_of(response.body)
        self._stall_s = stall_s
        self._transfer = transfer
        self._rest: Any = None
        self._buffer: Any = None

    def header(self, name: str) -> str | None:
        """Return a header that this page may see."""
        return http_browser.header(self._response, name)

    async def read(self, n: int, on_bytes: OnBytes | None = None) -> HostBytes:
        """Return the next bytes of the body as an ArrayBuffer."""
        target = js.Uint8Array.new(pywebllm_worker.bufferOf(n))
        filled = 0
        try:
            while filled < n and (chunk := await self._next(n - filled)) is not None:
                if chunk.length > n - filled:
                    self._rest = chunk.subarray(n - filled)
                    chunk = chunk.subarray(0, n - filled)
                target.set(chunk, filled)
                filled += chunk.length
                if on_bytes is not None:
                    on_bytes(filled)
        except TimeoutError as error:
            reason = f"nothing came for {self._stall_s:.0f} s"
            raise BodyBrokenError(reason, target.buffer.slice(0, filled)) from error
        except JsException as error:
            reason = f"the connection broke ({error.name}: {error.message})"
            raise BodyBrokenError(reason, target.buffer.slice(0, filled)) from error
        return target.buffer if filled == n else target.buffer.slice(0, filled)

    def close(self) -> None:
        """Abort the request if it is still going on."""
        self._transfer.close()

    async def _next(self, most: int) -> Any:
        """Return the next chunk as a Uint8Array, good until the next one is asked for.

        None at the end of the body.
        """
        if self._rest is not None:
            chunk, self._rest = self._rest, None
            return chunk
        if self._reader is None:
            return None
        views: tuple[Any, ...] = ()
        if self._fills_buffers:
            # A reader hands the buffer back with the chunk in it; new ones cost more than bytes.
            buffer, self._buffer = self._buffer or js.ArrayBuffer.new(_CHUNK_BYTES), None
            views = (js.Uint8Array.new(buffer, 0, min(most, _CHUNK_BYTES)),)
        async with asyncio.timeout(self._stall_s):
            part = await self._reader.read(*views)
        if part.done:
            return None
        if self._fills_buffers:
            self._buffer = part.value.buffer
        return part.value


def _reader_of(body: Any) -> tuple[Any, bool]:
    """Return a body's reader, and whether it fills buffers, of which larger ones take fewer calls.

    Not all browsers have such readers of what they fetch.
    """
    if not body:
        return None, False
    try:
        return body.getReader(mode="byob"), True
    except JsException:
        return body.getReader(), False
