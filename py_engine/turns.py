"""Requests of one model, one after another, until the model is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from py_engine.errors import MLCError


class Turns:
    """Gives out turns in the order in which they were asked for."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._closed: MLCError | None = None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed is not None

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for the turns before; raises what `close` was given when that comes first."""
        async with self._lock:
            self.raise_if_closed()
            yield

    def close(self, reason: MLCError) -> None:
        """Fail those who wait, and everyone later, with `reason`."""
        if self._closed is None:
            self._closed = reason

    def raise_if_closed(self) -> None:
        """Raise the reason, where there is one."""
        if self._closed is not None:
            # A new one: an error that is raised twice would collect tracebacks.
            raise type(self._closed)(str(self._closed))
