"""What another program, such as WebLLM, has stored for this site."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from py_engine.storage.identity import Identity
from py_engine.storage.source import HostBytes


@dataclass(frozen=True)
class OtherFile:
    """A whole file and what its server said of it."""

    data: HostBytes
    identity: Identity


class OtherStore(Protocol):
    """Whole files by URL. They are read and deleted, never written."""

    async def get(self, url: str) -> OtherFile | None:
        """Return a file; None where there is none."""
        ...

    async def has(self, url: str) -> bool:
        """Whether there is a file."""
        ...

    async def paths(self, folder_url: str) -> list[str]:
        """Return the paths of all files under an address."""
        ...

    async def delete(self, folder_url: str, paths: Collection[str] | None = None) -> int:
        """Delete files under an address, by default all; return how many bytes they had."""
        ...
