"""A file on its way into the store, for readers that need not wait for the whole of it."""

from __future__ import annotations

import asyncio

from py_engine.storage.store import StoredFile


class Arrival:
    """Tells readers what is there of a file, and remembers what they were given.

    Whoever brings the file calls `begin` with each stored file that is going to be filled, and at
    last `end`.
    """

    def __init__(self) -> None:
        self._file: StoredFile | None = None
        self._begun = asyncio.Event()
        self._is_over = False
        self._given: list[tuple[StoredFile, int]] = []  # with its drops until then

    def begin(self, file: StoredFile) -> None:
        """Say which stored file is being filled."""
        before, self._file = self._file, file
        self._begun.set()
        if before is not None:
            before.wake()

    def end(self) -> None:
        """Let go of whoever still waits."""
        self._is_over = True
        self._begun.set()
        if self._file is not None:
            self._file.wake()

    async def wait(self) -> None:
        """Wait for the end."""
        while not self._is_over:
            await self._news()

    async def file_with(self, begin: int, end: int) -> StoredFile | None:
        """Return the stored file once it has a range of bytes; None when it has come to an end.

        What is read of it counts as given, checked or not: see `gave`.
        """
        while not self._is_over:
            file = self._file
            if file is not None and file.pieces.issuperset(file.covering(begin, end)):
                self._given.append((file, file.n_drops))
                return file
            await self._news()
        return None

    def gave(self, file: StoredFile) -> bool:
        """Return whether all that was given is what `file` has now."""
        return all(each is file and drops == file.n_drops for each, drops in self._given)

    async def _news(self) -> None:
        await (self._begun.wait() if self._file is None else self._file.news())
