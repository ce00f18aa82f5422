"""What sessions need of a browser's storage: small files in a folder for each session, and locks.

`files_browser.py` implements it with OPFS; tests have it in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class JournalFile(Protocol):
    """A file that is open for appending."""

    async def append(self, data: bytes) -> None:
        """Add bytes to the end; on return they are on the disk.

        When it fails the file is as before, as far as the browser lets it. Errors: StorageError.
        """
        ...

    async def close(self) -> None:
        """Let others open the file."""
        ...


class SessionFiles(Protocol):
    """Files by session and name, shared by all tabs of a site.

    Errors of all methods: StorageError where the browser refuses.
    """

    def try_hold(self, session_id: str) -> AbstractAsyncContextManager[bool]:
        """Hold a session's lock in a `with` block if nobody else does, which its value tells.

        It is free again when its holder's tab or worker is gone.
        Errors: CrossContextLockUnavailableError.
        """
        ...

    async def sessions(self) -> Sequence[str]:
        """Return the ids of all sessions that have files."""
        ...

    async def read(self, session_id: str, name: str) -> bytes | None:
        """Return a whole file; None where there is none."""
        ...

    async def write(self, session_id: str, name: str, data: bytes) -> None:
        """Write a whole file. Errors: StorageFullError."""
        ...

    async def open_journal(self, session_id: str, name: str, size: int) -> JournalFile:
        """Open a file for appending, made where there is none, cut off after `size` bytes."""
        ...

    async def delete(self, session_id: str) -> None:
        """Delete a session's files, if there are any."""
        ...
