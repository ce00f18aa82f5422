"""The async iterator that a streaming request returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import ClassVar

from py_engine.api.objects import ApiObject


class ResponseStream:
    """An async iterator of a response's chunks.

    Its request takes its turn at the model with the first chunk, and gives it up with the last, or
    when the stream is closed (`aclose`, or the end of an `async with` block), cancelled or dropped.
    """

    _closing: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(self, chunks: AsyncGenerator[ApiObject, None]) -> None:
        self._chunks = chunks
        self._is_open = False

    def __aiter__(self) -> ResponseStream:
        return self

    async def __anext__(self) -> ApiObject:
        self._is_open = True
        try:
            return await anext(self._chunks)
        except BaseException:
            self._is_open = False
            raise

    async def aclose(self) -> None:
        """End the reply and free the model; returns when that is done. May be called twice."""
        self._is_open = False
        await self._chunks.aclose()

    async def __aenter__(self) -> ResponseStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Pyodide's event loop does not close async generators that nobody refers to any more.
        if self._is_open:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # the interpreter or the loop has ended
                return
            task = loop.create_task(self._chunks.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
