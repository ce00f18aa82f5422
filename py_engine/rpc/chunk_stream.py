"""A streamed completion on the proxy's side: one chunk is pulled from the worker at a time.

Runs on CPython, Pyodide and MicroPython; a class because MicroPython has no async generators.
"""

import gc
import sys
import weakref

from py_engine.api.objects import ApiObject
from py_engine.errors import UnknownStreamError, WorkerRestartedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from py_engine.rpc.channel import Channel


class ChunkStream:
    """The chunks of one streamed completion, for `async for`.

    A stream that is left before its end frees the model when it is dropped: at once on CPython and
    Pyodide, at the next garbage collection on MicroPython. `async with stream:` and
    `await stream.aclose()` do it at a time of your choosing.

    `open()` sends its request, again where the browser replaces the worker before the first chunk;
    after that the stream ends with WorkerRestartedError.
    """

    def __init__(
        self, channel: "Channel", stream_id: str, open: "Callable[[], Awaitable[object]]"
    ) -> None:
        self._channel = channel
        self._content = {"streamId": stream_id}
        self._open = open
        self._has_chunks = False
        self._is_open = True
        channel.open_streams.add(stream_id)
        self._finalizer = weakref.finalize(self, _drop, channel, self._content)

    def __aiter__(self) -> "ChunkStream":
        return self

    async def __anext__(self) -> "Any":
        if not self._is_open:
            raise StopAsyncIteration
        try:
            chunk = await self._next()
        except Exception:  # the worker forgets a stream that failed
            self._end()
            raise
        if not isinstance(chunk, dict):
            self._end()
            raise StopAsyncIteration
        self._has_chunks = True
        return ApiObject(chunk)

    async def _next(self) -> "Any":
        try:
            return await self._channel.call("completionStreamNextChunk", self._content)
        except (WorkerRestartedError, UnknownStreamError) as error:
            if self._has_chunks:  # a worker that does not know it is another one
                raise WorkerRestartedError(
                    "The browser ended the engine's worker during this stream. What it gave before "
                    "is right, but its rest is lost: send the request again."
                ) from error
        await self._open()
        return await self._channel.call("completionStreamNextChunk", self._content)

    async def __aenter__(self) -> "ChunkStream":
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the completion and free the model; nothing happens after the stream's end."""
        if self._is_open:
            self._end()
            await self._channel.call("completionStreamReturn", self._content)

    def _end(self) -> None:
        self._is_open = False
        self._channel.open_streams.discard(self._content["streamId"])
        self._finalizer.detach()


def collect_dropped_streams() -> None:
    """Let go of dropped streams where only a garbage collection finds them (MicroPython)."""
    if sys.implementation.name == "micropython":
        gc.collect()


def _drop(channel: "Channel", content: "dict[str, str]") -> None:
    channel.open_streams.discard(content["streamId"])
    if not channel.is_closed:
        channel.send("completionStreamReturn", content)
