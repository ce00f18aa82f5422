"""What a model's place is known to have: its listing, and what its files should be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from py_engine.errors import MissingFileError, ModelFileError, NetworkError
from py_engine.storage.download import RemoteFile
from py_engine.storage.expected import (
    LISTING_NOTE,
    MANIFEST_FILE,
    ExpectedFiles,
    listing_from_text,
    listing_text,
)
from py_engine.storage.http_errors import Headers
from py_engine.storage.source import NOT_THERE, FileInfo, ModelSource
from py_engine.storage.transport import Request

if TYPE_CHECKING:
    from py_engine.storage.model_storage import ModelStorage


class RemoteSource(ModelSource, Protocol):
    """A source over HTTP that says how to ask for its files."""

    def request(self, path: str) -> tuple[str, dict[str, str]]:
        """Return the address to ask for a file, and the headers to send."""
        ...

    def refusal(self, address: str, status: int, header: Headers) -> ModelFileError:
        """Return the error for an answer that is not what was asked for."""
        ...


class KnownFiles:
    """Asks once for the listing and the manifest of `remote`; `read_text` reads a small file.

    `storage` keeps the listing for when there is no network.
    """

    def __init__(
        self,
        remote: RemoteSource,
        storage: ModelStorage,
        read_text: Callable[[RemoteFile], Awaitable[str]],
    ) -> None:
        self._remote = remote
        self._storage = storage
        self._read_text = read_text
        self._listing: Mapping[str, FileInfo] | None = None
        self._is_listed = False
        self._expected: ExpectedFiles | None = None
        self._asking = asyncio.Lock()

    async def listing(self) -> Mapping[str, FileInfo] | None:
        """Return all files by path, without a network as they were last; None where unlisted."""
        if not self._is_listed:
            self._listing = await self._list()
            self._is_listed = True
        return self._listing

    async def expected(self) -> ExpectedFiles:
        """Return what the files should be."""
        async with self._asking:
            if self._expected is None:
                self._expected = await self._ask_for_hashes()
        return self._expected

    async def file(self, path: str) -> RemoteFile:
        """Return how to ask for a file. Raises MissingFileError where it is not in the listing."""
        return self._described(path, await self.expected())

    async def _list(self) -> Mapping[str, FileInfo] | None:
        url = self._remote.url
        try:
            listing = await self._storage.downloader.fetcher.retry(
                f"{url}{LISTING_NOTE}", self._remote.list_files
            )
        except NetworkError:
            text = await self._storage.read_note(url, LISTING_NOTE)
            if text is None:
                raise
            return listing_from_text(text)
        if listing is not None:
            await self._storage.write_note(url, LISTING_NOTE, listing_text(listing))
        return listing

    async def _ask_for_hashes(self) -> ExpectedFiles:
        expected = ExpectedFiles()
        listing = await self.listing()
        if listing is not None:
            expected.add_listing(listing)
        if listing is None or MANIFEST_FILE in listing:
            try:
                text = await self._read_text(self._described(MANIFEST_FILE, expected))
            except NOT_THERE:
                return expected
            expected.add_file(MANIFEST_FILE, text)
        return expected

    def _described(self, path: str, expected: ExpectedFiles) -> RemoteFile:
        url = self._remote.url
        if expected.listed is not None and path not in expected.listed:
            raise MissingFileError(
                f"{url}{path} does not exist. Correct the model's address, or put the file there."
            )
        address, headers = self._remote.request(path)
        request = Request(address, headers, self._remote.refusal)
        return RemoteFile(url, path, request, expected.get(path))
