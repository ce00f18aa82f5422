"""Locks by name, between everything that shares a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol


class Locks(Protocol):
    """Exclusive locks. One that is held by a tab that goes away is free again."""

    def hold(self, name: str) -> AbstractAsyncContextManager[None]:
        """Wait for the lock and hold it in a `with` block."""
        ...

    def try_hold(self, name: str) -> AbstractAsyncContextManager[bool]:
        """Hold the lock in a `with` block if nobody else does, which its value tells."""
        ...


class LocalLocks:
    """`Locks` within one interpreter, where there are no others."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Wait for the lock and hold it."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            yield

    @asynccontextmanager
    async def try_hold(self, name: str) -> AsyncIterator[bool]:
        """Hold the lock if it is free."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        if lock.locked():
            yield False
            return
        async with lock:
            yield True
