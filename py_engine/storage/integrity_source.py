"""A source that compares files with the hashes of the model's record before they are used."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from py_engine.errors import IntegrityError, StorageError
from py_engine.integrity import OnFailure, check_digest, sri_digest, verify_integrity
from py_engine.storage.host_bytes import to_bytes
from py_engine.storage.source import (
    FileInfo,
    HostBytes,
    ModelSource,
    OnBytes,
    decode_text,
    keeps_files,
    parse_json,
)

# A larger file is hashed in pieces of this size, in Python: browsers only hash what is in memory.
PIECE_BYTES = 1 << 26

logger = logging.getLogger(__name__)

Download = Callable[[list[str], OnBytes | None], Awaitable[bool]]


class IntegritySource:
    """A `ModelSource` over another one. A file with a hash is verified before it is used.

    Only a file larger than PIECE_BYTES that is going to be downloaded is read from before, for its
    header: it is verified as soon as it is there, by `download`.
    A mismatch raises IntegrityError, after `forget([path])` where something is to forget the file;
    or it is logged where `on_failure` is "warn". What else the other source can do is there too.
    """

    def __init__(
        self,
        source: ModelSource,
        hashes: Mapping[str, str],
        on_failure: OnFailure,
        forget: Callable[[list[str]], Awaitable[object]] | None = None,
    ) -> None:
        self._source = source
        self._hashes = hashes
        self._on_failure = on_failure
        self._forget = forget
        self._verified: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._source, name)
        return partial(self._download, member) if name == "download" else member

    @property
    def url(self) -> str:
        """The folder's address."""
        return self._source.url

    @property
    def entry(self) -> str:
        """The file that the address names."""
        return self._source.entry

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file."""
        return decode_text(to_bytes(await self.read_bytes(path)), f"{self.url}{path}")

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file."""
        return parse_json(await self.read_text(path), f"{self.url}{path}")

    async def read_bytes(self, path: str, on_bytes: OnBytes | None = None) -> HostBytes:
        """Return a whole file."""
        data = await self._source.read_bytes(path, on_bytes)
        if path in self._hashes:
            async with self._verifying(path):
                await verify_integrity(data, self._hashes[path], self.url + path, self._on_failure)
        return data

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: OnBytes | None = None
    ) -> HostBytes:
        """Return a part of a file."""
        if path in self._hashes and path not in self._verified and not await self._waits(path):
            await self._verify(path)
        return await self._source.read_range(path, begin, end, on_bytes)

    async def size(self, path: str) -> int:
        """Return a file's length in bytes."""
        return await self._source.size(path)

    async def list_files(self) -> Mapping[str, FileInfo] | None:
        """Return all files by path; None where the place cannot be listed."""
        return await self._source.list_files()

    async def _download(
        self, download: Download, paths: Iterable[str], on_bytes: OnBytes | None = None
    ) -> bool:
        wanted = list(paths)
        is_right = await download(wanted, on_bytes)
        for path in wanted:
            if path in self._hashes and path not in self._verified:
                await self._verify(path)
        return is_right

    async def _waits(self, path: str) -> bool:
        """Whether a file is verified once it is downloaded."""
        return keeps_files(self._source) and await self.size(path) > PIECE_BYTES

    async def _verify(self, path: str) -> None:
        size = await self._source.size(path)
        if size <= PIECE_BYTES:
            await self.read_bytes(path)
            return
        algorithm, expected = sri_digest(self._hashes[path])
        digest = hashlib.new(algorithm)
        for begin in range(0, size, PIECE_BYTES):
            piece = await self._source.read_range(path, begin, min(begin + PIECE_BYTES, size))
            digest.update(to_bytes(piece))
        async with self._verifying(path):
            check_digest(algorithm, digest.digest(), expected, self.url + path, self._on_failure)

    @asynccontextmanager
    async def _verifying(self, path: str) -> AsyncIterator[None]:
        try:
            yield
        except IntegrityError:
            try:
                if self._forget is not None:
                    await self._forget([path])
            except StorageError as busy:
                logger.warning("%s%s stays stored: %s", self.url, path, busy)
            raise
        self._verified.add(path)
