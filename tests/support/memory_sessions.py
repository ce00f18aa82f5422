"""The files of resumable sessions in memory, which a test can fill up, cut off and lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from py_engine.errors import CrossContextLockUnavailableError, StorageFullError


@dataclass
class MemorySessions:
    """A `SessionFiles`; `capacity` bytes fit. `data` outlives whoever uses it.

    `on_append(bytes)` runs before each append. `held` are the locked sessions; a browser without
    locks has `has_locks` false. `appends` counts what was flushed.
    """

    data: dict[str, dict[str, bytes]] = field(default_factory=dict)
    capacity: int | None = None
    on_append: Callable[[bytes], None] | None = None
    held: set[str] = field(default_factory=set)
    has_locks: bool = True
    appends: int = 0
    open_files: int = 0

    @asynccontextmanager
    async def try_hold(self, session_id: str) -> AsyncIterator[bool]:
        if not self.has_locks:
            raise CrossContextLockUnavailableError("no locks")
        await asyncio.sleep(0)
        if session_id in self.held:
            yield False
            return
        self.held.add(session_id)
        try:
            yield True
        finally:
            self.held.discard(session_id)

    async def sessions(self) -> list[str]:
        return list(self.data)

    async def read(self, session_id: str, name: str) -> bytes | None:
        await asyncio.sleep(0)
        return self.data.get(session_id, {}).get(name)

    async def write(self, session_id: str, name: str, data: bytes) -> None:
        await asyncio.sleep(0)
        self.put(session_id, name, data)

    async def open_journal(self, session_id: str, name: str, size: int) -> MemoryJournal:
        self.put(session_id, name, self.data.get(session_id, {}).get(name, b"")[:size])
        self.open_files += 1
        return MemoryJournal(self, session_id, name)

    async def delete(self, session_id: str) -> None:
        assert session_id in self.held, "deleted without its lock"
        self.data.pop(session_id, None)

    def put(self, session_id: str, name: str, data: bytes) -> None:
        assert session_id in self.held, "written without its lock"
        files = self.data.setdefault(session_id, {})
        others = sum(len(each) for all_ in self.data.values() for each in all_.values())
        added = len(data) - len(files.get(name, b""))
        if self.capacity is not None and added > 0 and others + added > self.capacity:
            raise StorageFullError("full")
        files[name] = data


@dataclass
class MemoryJournal:
    """An open file of `MemorySessions`."""

    sessions: MemorySessions
    session_id: str
    name: str
    is_open: bool = True

    async def append(self, data: bytes) -> None:
        await asyncio.sleep(0)
        assert self.is_open
        if self.sessions.on_append is not None:
            self.sessions.on_append(data)
        before = self.sessions.data[self.session_id][self.name]
        self.sessions.put(self.session_id, self.name, before + data)
        self.sessions.appends += 1

    async def close(self) -> None:
        assert self.is_open
        self.is_open = False
        self.sessions.open_files -= 1
