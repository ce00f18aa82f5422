"""Files that all sites share, by their SHA-256 (`navigator.crossOriginStorage`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from py_engine.storage.source import HostBytes


class SharedFiles(Protocol):
    """Whole files by their SHA-256 in lower-case hex, which whoever keeps them has checked.

    A site can neither list nor delete them.
    """

    async def has(self, sha256: str) -> bool:
        """Whether the file is there and this site may read it."""
        ...

    async def read(self, sha256: str, begin: int, end: int) -> HostBytes | None:
        """Return a range of a file; None where it is not there."""
        ...

    async def put(self, sha256: str, parts: AsyncIterator[HostBytes]) -> None:
        """Keep a file, given in parts. Raises StorageError where that is not allowed."""
        ...
