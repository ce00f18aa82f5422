"""Fills a stored file with what is missing of it, and checks the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from py_engine.errors import IntegrityError
from py_engine.storage.fetcher import Fetcher, NoRangesError, has_more
from py_engine.storage.identity import ContentHash, sha256_of
from py_engine.storage.source import HostBytes, OnBytes, byte_length
from py_engine.storage.store import StoredFile
from py_engine.storage.tasks import run_together
from py_engine.storage.transport import BodyBrokenError, Request, Response

_PIECE_TRIES = 3

Advance = Callable[[int], object]
"""Is called with the number of bytes that came since the last call; negative for bytes dropped."""


class Progress:
    """How many bytes of a file are there, told to `advance` as differences."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._bytes = 0

    def set(self, n: int) -> None:
        """Say how many bytes there are."""
        if n != self._bytes:
            self._advance(n - self._bytes)
            self._bytes = n

    def part(self) -> OnBytes:
        """Return a function to call with the bytes that are there of one more part."""
        had = 0

        def on_bytes(n: int) -> None:
            nonlocal had
            self.set(self._bytes + n - had)
            had = n

        return on_bytes


class Transfer:
    """One file's way from its server into the store; `places` bounds the pieces in flight."""

    def __init__(
        self,
        file: StoredFile,
        request: Request,
        fetcher: Fetcher,
        places: asyncio.Semaphore,
        progress: Progress,
    ) -> None:
        self._file = file
        self._request = request
        self._fetcher = fetcher
        self._places = places
        self._progress = progress

    async def run(self, first: Response | None = None) -> None:
        """Make the file complete and verified. `first` is an answer for its first piece, or for
        all of it.

        Errors: IntegrityError after the wrong pieces, or all where it is unknown which are wrong,
        were dropped; FileChangedError, LostPieceError, StorageFullError, and Fetcher's.
        """
        fill = self.run_part(first, range(self._file.n_pieces))
        digest, _ = await run_together([self._check(), fill])
        if digest is not None:
            await self._file.finish(digest.digests())

    async def run_part(self, first: Response | None, indices: Iterable[int]) -> None:
        """Have some pieces in the store, checked only where their own hashes are known."""
        self._progress.set(self._file.stored_bytes)
        missing = [index for index in indices if index not in self._file.pieces]
        try:
            if first is not None and first.status == 200:
                await self._stream(first)
            else:
                await run_together(
                    [self._fetch_piece(index, None if index else first) for index in missing]
                )
        except NoRangesError:
            await self._stream(None)
        finally:
            if first is not None:
                first.close()

    async def _fetch_piece(self, index: int, response: Response | None) -> None:
        async with self._places:
            await self._file.write(index, await self._right_piece(index, response))

    async def _right_piece(self, index: int, response: Response | None) -> HostBytes:
        begin, end = self._file.span(index)
        on_bytes = self._progress.part()
        for _ in range(_PIECE_TRIES):
            data = await self._fetcher.read_range(
                self._request,
                begin,
                end,
                self._file.identity,
                response=response,
                on_bytes=on_bytes,
            )
            response = None
            actual = await self._wrong_hash(index, data)
            if not actual:
                return data
            on_bytes(0)
        expected = self._file.identity.pieces[index]
        raise integrity_error(f"{self._request.shown} (bytes {begin} to {end})", expected, actual)

    async def _wrong_hash(self, index: int, data: HostBytes) -> str:
        """Return a piece's hash if it is known to be another; "" where nothing is wrong."""
        if index >= len(self._file.identity.pieces):
            return ""
        actual = await sha256_of(data)
        return "" if actual == self._file.identity.pieces[index] else actual

    async def _stream(self, response: Response | None) -> None:
        """Take pieces from answers with the whole file, as servers without ranges send them."""
        await self._fetcher.read_whole(self._request, self._take_whole, response=response)

    async def _take_whole(self, response: Response) -> None:
        file = self._file
        self._progress.set(file.stored_bytes)
        for index in range(file.n_pieces):
            begin, end = file.span(index)
            on_bytes = None if index in file.pieces else self._progress.part()
            data = await response.read(end - begin, on_bytes)
            if byte_length(data) < end - begin:
                raise BodyBrokenError(f"the answer ended {file.size - begin} bytes early", None)
            if index in file.pieces:
                continue
            if await self._wrong_hash(index, data):
                raise BodyBrokenError(f"bytes {begin} to {end} were damaged", None)
            await file.write(index, data)
        if await has_more(response):
            raise BodyBrokenError(f"the answer had more than the {file.size} bytes it should", None)

    async def _check(self) -> ContentHash:
        """Hash the file as its pieces come to be stored; drop what is wrong of it."""
        file = self._file
        digest = ContentHash(file.identity, is_named=file.shared is not None)
        if not digest.is_needed and not file.identity.pieces:
            return digest  # nobody says what it should be
        wrong = []
        for index in range(file.n_pieces):
            while index not in file.pieces:
                await file.news()
            data = await file.read(*file.span(index))
            await digest.update(data)
            if await self._wrong_hash(index, data):
                wrong.append(index)
        name = digest.mismatch()
        if not name and not wrong:
            return digest
        await file.drop(wrong or range(file.n_pieces))
        expected, actual = getattr(file.identity, name or "sha256"), digest.digests()
        raise integrity_error(self._request.shown, expected, actual[name or "sha256"])


def integrity_error(url: str, expected: str, actual: str) -> IntegrityError:
    """Return the error for a file whose content has another hash than it should."""
    error = IntegrityError(
        f"{url} is not the file that it should be: its hash is {actual}, but should be {expected}. "
        "The server has a damaged or another file: try again later, or use another address."
    )
    error.url, error.expected, error.actual = url, expected, actual
    return error
