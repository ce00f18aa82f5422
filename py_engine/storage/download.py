"""Brings a file from its server into the store, verified; goes on where an earlier try stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from py_engine.errors import IntegrityError, MissingFileError, NetworkError
from py_engine.storage.fetcher import Fetcher, FileChangedError
from py_engine.storage.host_bytes import cut
from py_engine.storage.identity import Identity
from py_engine.storage.locks import Locks
from py_engine.storage.other_store import OtherStore
from py_engine.storage.source import NOT_THERE, HostBytes, byte_length
from py_engine.storage.store import FileStore, LostPieceError, StoredFile
from py_engine.storage.transfer import Advance, Progress, Transfer
from py_engine.storage.transport import (
    BodyBrokenError,
    Request,
    Response,
    content_length,
    content_range,
    identity_of,
)

PIECE_BYTES = 8 << 20
IN_FLIGHT = 6

# A file that no listing knows is taken as it comes up to this size, whatever its Content-Length is:
# a server that compresses it announces another length, and may hide from other sites that it does.
_UNSURE_BYTES = 64 << 20

_ROUNDS = 4

OnBegin = Callable[[StoredFile], object]
"""Is called with a stored file that is going to be filled."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of the model at `url`: its path, how to ask for it, and its content if that is known.

    `expected` is from a listing or a manifest; without a hash in it the server's word is taken.
    """

    url: str
    path: str
    request: Request
    expected: Identity | None = None

    @property
    def lock(self) -> str:
        """The name of the lock that whoever writes the file holds."""
        return f"pywebllm:{self.url}{self.path}"

    @property
    def known(self) -> Identity | None:
        """The content, if there is a hash to tell it by."""
        return self.expected if self.expected and self.expected.best_hash else None


@dataclass
class _Answer:
    """What the server said of a file. `response` is open, unless it is of no further use."""

    identity: Identity | None
    response: Response | None


class Downloader:
    """Downloads into `files`, at most `in_flight` pieces at once over all files.

    What `other` has is copied and verified instead.
    """

    def __init__(
        self,
        files: FileStore,
        fetcher: Fetcher,
        locks: Locks,
        *,
        in_flight: int = IN_FLIGHT,
        piece_bytes: int = PIECE_BYTES,
        other: OtherStore | None = None,
    ) -> None:
        self.piece_bytes = piece_bytes
        self._files = files
        self.fetcher = fetcher
        self._locks = locks
        self._other = other
        self._places = asyncio.Semaphore(in_flight)

    async def fetch(
        self,
        remote: RemoteFile,
        advance: Advance = lambda n: None,
        on_begin: OnBegin = lambda file: None,
    ) -> StoredFile:
        """Return the file, verified; only what is not in the store yet is downloaded.

        While another tab downloads it, this waits. A stored file whose server cannot be reached is
        returned as it is. `advance` is told of all bytes of the file, also of stored ones, and
        `on_begin` of each stored file that is going to be filled.

        Errors: MissingFileError, NetworkError and its classes, IntegrityError, StorageFullError.
        """
        async with self._locks.hold(remote.lock):
            progress = Progress(advance)

            async def bring() -> StoredFile:
                return await self._bring(remote, progress, on_begin=on_begin)

            file = await self._until_right(remote, progress, bring)
            progress.set(file.size)
            return file

    async def fetch_range(self, remote: RemoteFile, begin: int, end: int) -> StoredFile:
        """Return the file with the pieces of a range in it, not verified unless it is complete.

        Errors: those of `fetch`; TruncatedFileError when the file ends before `end`.
        """
        async with self._locks.hold(remote.lock):
            progress = Progress(lambda n: None)

            async def bring() -> StoredFile:
                return await self._bring(remote, progress, (begin, end))

            return await self._until_right(remote, progress, bring)

    async def _until_right(
        self,
        remote: RemoteFile,
        progress: Progress,
        bring: Callable[[], Awaitable[StoredFile]],
    ) -> StoredFile:
        wrong_hash = ""
        for _ in range(_ROUNDS):
            try:
                return await bring()
            except FileChangedError:
                if remote.known is None:
                    await self._files.discard(remote.url, remote.path)
            except LostPieceError:
                pass
            except IntegrityError as error:
                if error.actual == wrong_hash:
                    raise  # the server has that content, so that another try is no use
                wrong_hash = error.actual
            progress.set(0)
        raise NetworkError(
            f"{remote.request.shown} was another file each of {_ROUNDS} times that it was fetched: "
            "it changes, or is damaged on its way. Load the model again later."
        )

    async def _bring(
        self,
        remote: RemoteFile,
        progress: Progress,
        span: tuple[int, int] | None = None,
        on_begin: OnBegin = lambda file: None,
    ) -> StoredFile:
        file = await self._files.find(remote.url, remote.path) or await self._adopt(remote)
        if remote.known is not None:
            if file is None or not file.identity.may_equal(remote.known):
                file = await self._create(remote, remote.known)
            if not file.is_verified and await file.take_shared(remote.known.sha256):
                return file
            answer = _Answer(remote.known, None)
        else:
            try:
                answer = await self._ask(remote, file)
            except NetworkError:
                if file is None or not file.is_verified:
                    raise
                return file
            file = await self._file_of(remote, file, answer, progress)
        if file.is_verified and _has_hash_of(file, remote.expected):
            if answer.response is not None:
                answer.response.close()
            return file
        file.expect(remote.expected)
        on_begin(file)
        transfer = Transfer(file, remote.request, self.fetcher, self._places, progress)
        is_whole_answer = answer.response is not None and answer.response.status == 200
        if span is None or is_whole_answer:
            await transfer.run(answer.response)
        else:
            await transfer.run_part(answer.response, file.covering(*span))
        return file

    async def _adopt(self, remote: RemoteFile) -> StoredFile | None:
        """Copy a file that another program stored; not verified yet."""
        found = await self._other.get(f"{remote.url}{remote.path}") if self._other else None
        if found is None or not found.identity.may_equal(remote.known or found.identity):
            return None
        file = await self._create(remote, remote.known or found.identity)
        for index in range(file.n_pieces):
            await file.write(index, cut(found.data, *file.span(index)))
        return file

    async def _ask(self, remote: RemoteFile, file: StoredFile | None) -> _Answer:
        """Ask the server for the beginning of a file, or only for what it says of a stored one."""
        request = remote.request
        end = self.piece_bytes if file is None else 1
        try:
            response = await self.fetcher.open(request, 0, end)
        except NOT_THERE as error:
            if file is None or isinstance(error, MissingFileError):
                await self._files.set_absent(remote.url, remote.path)
            raise
        found = content_range(response)
        if response.status == 206 and found is not None and found.total >= 0:
            identity = identity_of(response, found.total)
            if file is None:
                return _Answer(identity, response)
            response.close()
            return _Answer(identity, None)
        if response.status != 200:  # the file is empty, or the server hides how long it is
            response.close()
            response = await self.fetcher.open(request)
        length = content_length(response)
        return _Answer(None if length is None else identity_of(response, length), response)

    async def _file_of(
        self, remote: RemoteFile, file: StoredFile | None, answer: _Answer, progress: Progress
    ) -> StoredFile:
        """Return the file that the server answered of: the stored one, or a new one."""
        identity, response = answer.identity, answer.response
        if file is not None and _is_unchanged(file, answer, self.piece_bytes):
            return file
        if response is not None and response.status == 200:
            if identity is None or identity.size <= _UNSURE_BYTES:
                answer.response = None
                return await self._take_whole(remote, response, progress)
        if identity is None:
            raise FileChangedError("its length is not known any more")
        return await self._create(remote, identity)

    async def _take_whole(
        self, remote: RemoteFile, response: Response, progress: Progress
    ) -> StoredFile:
        """Store all that comes, for a file whose size is not known for sure before its end."""
        identity, parts = await self.fetcher.read_whole(
            remote.request, lambda answer: self._read_all(answer, progress), response=response
        )
        file = await self._create(remote, identity)
        for index, part in enumerate(parts):
            await file.write(index, part)
        return file

    async def _read_all(
        self, response: Response, progress: Progress
    ) -> tuple[Identity, list[HostBytes]]:
        progress.set(0)
        parts: list[HostBytes] = []
        size = 0
        while not parts or byte_length(parts[-1]) == self.piece_bytes:
            parts.append(await response.read(self.piece_bytes, progress.part()))
            size += byte_length(parts[-1])
        length = content_length(response)
        if length is not None and size < length:
            raise BodyBrokenError(f"the answer ended after {size} of {length} bytes", None)
        if len(parts) > 1 and not byte_length(parts[-1]):
            parts.pop()
        return identity_of(response, size), parts

    async def _create(self, remote: RemoteFile, identity: Identity) -> StoredFile:
        return await self._files.create(remote.url, remote.path, identity, self.piece_bytes)


def _is_unchanged(file: StoredFile, answer: _Answer, piece_bytes: int) -> bool:
    """Whether a stored file, or the part of it that is there, is what the server has now.

    Where a server tells no version, a large file that was complete counts as unchanged while its
    size is the same; everything else is fetched again.
    """
    identity, response = answer.identity, answer.response
    if response is not None and response.status == 200:
        identity = identity_of(response, file.size)
        is_told = file.identity.shares_evidence(identity)
        if not is_told and content_length(response) != file.size:
            return False
    if identity is None or not file.identity.may_equal(identity):
        return False
    is_large_and_whole = file.is_verified and file.size > piece_bytes
    return is_large_and_whole or file.identity.shares_evidence(identity)


def is_right(file: StoredFile, remote: RemoteFile) -> bool:
    """Whether a stored file is known to be what its server has, without asking it."""
    return (
        remote.known is not None
        and file.is_verified
        and file.identity.may_equal(remote.known)
        and _has_hash_of(file, remote.known)
    )


def _has_hash_of(file: StoredFile, expected: Identity | None) -> bool:
    return (
        expected is None
        or not expected.best_hash
        or bool(getattr(file.identity, expected.best_hash))
    )
