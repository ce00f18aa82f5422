"""An engine's stream of chunks as server-sent events, read no earlier than needed."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any, ClassVar

from py_engine.api.objects import plain
from py_engine.openai_transport.failures import failure

DONE = b"data: [DONE]\n\n"


class EventStream:
    """The events of one streamed reply; `model` is what its request asked for.

    A chunk is generated when the reader asks for it. From its first chunk to its last, or to
    `aclose`, the stream holds the model. A reader that goes away without either would hold it for
    ever, so `abandon` ends what was dropped, and `read_ahead` takes the rest into memory when
    somebody else waits for the model.
    """

    _closings: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(self, chunks: Any, model: Any) -> None:
        self.model = model
        self._chunks = chunks
        self._loop = asyncio.get_running_loop()
        self._events: deque[bytes] = deque()
        self._reading: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._reads_ahead = False
        self._has_begun = self._has_ended = False

    @property
    def holds_model(self) -> bool:
        """Whether the reply is under way."""
        return self._has_begun and not self._has_ended

    async def next(self) -> bytes | None:
        """Return the next event; None after the last one, or once the stream was closed."""
        self._has_begun = True
        while not self._events:
            if self._has_ended:
                return None
            self._read()
            if self._reading is not None:
                await asyncio.wait([self._reading])
        return self._events.popleft()

    def read_ahead(self) -> None:
        """Read all chunks that are left, whether or not somebody asks for them."""
        self._reads_ahead = True
        self._read()

    async def aclose(self) -> None:
        """End the reply and free the model; a reader that waits gets None. May be called twice."""
        self._has_ended = True
        await asyncio.shield(self._close_soon())

    def abandon(self) -> None:
        """Have the stream closed soon; may be called by a garbage collection in any thread."""
        if not self._has_ended and not self._loop.is_closed():
            self._has_ended = True
            self._loop.call_soon_threadsafe(self._close_soon)

    def _close_soon(self) -> asyncio.Task[None]:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
            self._closings.add(self._closing)
            self._closing.add_done_callback(self._closings.discard)
        return self._closing

    async def _close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        aclose = getattr(self._chunks, "aclose", None)
        if aclose is not None:
            await aclose()

    def _read(self) -> None:
        if self._reading is None and not self._has_ended:
            self._reading = asyncio.ensure_future(self._read_chunk())

    async def _read_chunk(self) -> None:
        try:
            chunk = plain(await anext(self._chunks))
            self._events.append(_event(chunk))
        except StopAsyncIteration:
            self._has_ended = True
            self._events.append(DONE)
        except Exception as error:
            self._has_ended = True
            self._events.append(_event(failure(error)[1]))
        finally:
            self._reading = None
        if self._reads_ahead:
            self._read()


def _event(data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()
