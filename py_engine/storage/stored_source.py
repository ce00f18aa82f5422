"""A model's files out of the store, downloaded into it first where they are not there.

Which copy counts:

* A file whose hash is known (from the listing of its repository, or `model-manifest.json`) is
  verified once. While that hash stays the same it is neither downloaded nor asked for again.
* Any other file is compared with its server once a load, by size and ETag or Last-Modified.
* Without a network, what is stored is what there is: a model that was loaded once loads again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from py_engine.errors import (
    MissingFileError,
    ModelFileError,
    NetworkError,
    StorageError,
    StorageFullError,
)
from py_engine.storage.arrival import Arrival
from py_engine.storage.download import OnBegin, RemoteFile, is_right
from py_engine.storage.expected import WANTED_NOTE
from py_engine.storage.host_bytes import to_bytes
from py_engine.storage.identity import sha256_of
from py_engine.storage.known_files import KnownFiles, RemoteSource
from py_engine.storage.source import (
    NOT_THERE,
    FileInfo,
    HostBytes,
    OnBytes,
    decode_text,
    parse_json,
    range_too_long,
)
from py_engine.storage.store import LostPieceError, StoredFile
from py_engine.storage.tasks import run_together
from py_engine.storage.transfer import Advance, integrity_error

if TYPE_CHECKING:
    from py_engine.storage.model_storage import ModelStorage

_FILES_AT_ONCE = 4
_READS = 3


class StoredSource:
    """A `ModelSource` over `remote` that keeps what it reads in `storage`.

    `download` brings whole files, several at once. A range that is read of any other file is
    fetched alone: an index can be read before it is known which files are needed.

    Errors of all readers: those of `Downloader.fetch`, StorageError's classes.
    """

    def __init__(self, remote: RemoteSource, storage: ModelStorage) -> None:
        self._remote = remote
        self._storage = storage
        self._known = KnownFiles(remote, storage, self._fetched_text)
        self._files: dict[str, StoredFile] = {}
        self._wanted: dict[str, int] = {}
        self._coming: dict[str, Arrival] = {}
        self._early: dict[str, dict[tuple[int, int], str]] = {}

    @property
    def url(self) -> str:
        """The address of the model's folder."""
        return self._remote.url

    @property
    def entry(self) -> str:
        """The path of the one file that the model's address names; "" where it names a folder."""
        return self._remote.entry

    async def read_text(self, path: str) -> str:
        """Return a UTF-8 file."""
        text = await self._decoded(await self._verified(path))
        (await self._known.expected()).add_file(path, text)
        return text

    async def read_json(self, path: str) -> Any:
        """Return a parsed JSON file."""
        return parse_json(await self.read_text(path), f"{self.url}{path}")

    async def read_bytes(self, path: str, on_bytes: OnBytes | None = None) -> HostBytes:
        """Return a whole file."""
        file = await self._verified(path, _summed(on_bytes))
        return await self._read(path, 0, file.size)

    async def read_range(
        self, path: str, begin: int, end: int, on_bytes: OnBytes | None = None
    ) -> HostBytes:
        """Return a part of a file, also of one that is only being downloaded: see `download`."""
        data = await self._read_coming(path, begin, end)
        if data is None:
            if path in self._coming or path in self._wanted:
                await self._verified(path)
            else:
                await self._have_range(path, begin, end)
            data = await self._read(path, begin, end)
        if on_bytes is not None:
            on_bytes(end - begin)
        return data

    async def size(self, path: str) -> int:
        """Return a file's length in bytes."""
        known = (await self._known.expected()).get(path)
        if known is not None:
            return known.size
        await self._have_range(path, 0, 0)
        return self._files[path].size

    async def list_files(self) -> Mapping[str, FileInfo] | None:
        """Return all files by path, without a network as they were last."""
        return await self._known.listing()

    async def download(self, paths: Iterable[str], on_bytes: OnBytes | None = None) -> bool:
        """Have files in the store, verified; `on_bytes(n)` counts the bytes of all that are there.

        Before anything is downloaded it is checked that there is room for all of it. Who reads a
        part of one of the files meanwhile waits for that part only. Returns False if any of what
        was read so was found to be wrong later and fetched again: then it has to be read again.
        """
        coming = {path: Arrival() for path in paths}
        self._coming |= coming
        try:
            await self._bring_all(coming, _summed(on_bytes))
        finally:
            for path, arrival in coming.items():
                arrival.end()
                self._coming.pop(path, None)
        return all(arrival.gave(self._files[path]) for path, arrival in coming.items())

    async def _read_coming(self, path: str, begin: int, end: int) -> HostBytes | None:
        """Return a part of a file that is being downloaded; None where it is not, or not any more.

        Raises TruncatedFileError.
        """
        arrival = self._coming.get(path)
        file = await arrival.file_with(begin, end) if arrival else None
        if file is None:
            return None
        if end > file.size:
            raise range_too_long(f"{self.url}{path}", begin, end, file.size)
        try:
            return await file.take(begin, end)
        except LostPieceError:
            return None

    async def _bring_all(self, coming: Mapping[str, Arrival], advance: Advance) -> None:
        remotes = [await self._known.file(path) for path in coming]
        sizes = {file.path: file.expected.size if file.expected else 0 for file in remotes}
        found = await self._storage.find(self.url, sizes)
        stored = sum(file.stored_bytes for file in found.values())
        await self._storage.check_room(self.url, sum(sizes.values()) - stored)
        self._wanted |= sizes
        await self._storage.write_note(self.url, WANTED_NOTE, json.dumps(self._wanted))
        places = asyncio.Semaphore(_FILES_AT_ONCE)

        async def bring(remote: RemoteFile) -> None:
            path = remote.path
            file = found.get(path)
            if file is not None and path not in self._early and is_right(file, remote):
                self._files[path] = file
                coming[path].begin(file)
            async with places:
                await self._ready(path, advance, coming[path].begin)
            coming[path].end()

        await run_together(map(bring, remotes))

    async def _verified(self, path: str, advance: Advance = lambda n: None) -> StoredFile:
        """Return a file that is all there, by whoever brings it."""
        if path in self._coming:
            await self._coming[path].wait()
        return await self._ready(path, advance)

    async def _ready(
        self, path: str, advance: Advance, on_begin: OnBegin = lambda file: None
    ) -> StoredFile:
        """Return a file that is all there; only the first call in a load may ask the server."""
        file = self._files.get(path)
        if file is not None and file.is_verified:
            advance(file.size)
            return file
        return await self._fetch(await self._known.file(path), advance, on_begin)

    async def _fetch(
        self,
        remote: RemoteFile,
        advance: Advance = lambda n: None,
        on_begin: OnBegin = lambda file: None,
    ) -> StoredFile:
        path = remote.path
        file = await self._told(path, self._storage.downloader.fetch(remote, advance, on_begin))
        await self._check_early(path, file)
        self._files[path] = file
        return file

    async def _have_range(self, path: str, begin: int, end: int) -> None:
        file = self._files.get(path)
        if file is not None and file.pieces.issuperset(file.covering(begin, end)):
            return
        remote = await self._known.file(path)
        ranges = self._storage.downloader.fetch_range(remote, begin, end)
        self._files[path] = await self._told(path, ranges)

    async def _told(self, path: str, bringing: Awaitable[StoredFile]) -> StoredFile:
        """Await a file; say of what fails what it means for this model."""
        try:
            return await bringing
        except NetworkError as error:
            raise await self._unless_absent(path, error) from error
        except StorageFullError as error:
            raise await self._storage.full_error(self.url, await self._lacking(path)) from error

    async def _read(self, path: str, begin: int, end: int) -> HostBytes:
        file = self._files[path]
        if end > file.size:
            raise range_too_long(f"{self.url}{path}", begin, end, file.size)
        for _ in range(_READS):
            try:
                data = await file.read(begin, end)
                break
            except LostPieceError:  # deleted by another tab, or evicted by the browser
                if self._files.get(path) is file:
                    del self._files[path]
                file = await self._verified(path)
        else:
            raise StorageError(
                f"{self.url}{path} was deleted from the browser's storage each of {_READS} times "
                "that it was read, by another tab or for lack of room. Load the model again."
            )
        if not file.is_verified and not file.identity.pieces:
            self._early.setdefault(path, {})[begin, end] = await sha256_of(data)
        return data

    async def _check_early(self, path: str, file: StoredFile) -> None:
        """Check what was given out of a file before all of it could be verified."""
        for (begin, end), digest in self._early.pop(path, {}).items():
            actual = await sha256_of(await file.read(begin, end))
            if actual != digest:
                where = f"{self.url}{path} (bytes {begin} to {end}, which came damaged at first)"
                raise integrity_error(where, actual, digest)

    async def _lacking(self, path: str) -> int:
        file = await self._storage.files.find(self.url, path)
        return file.size - file.stored_bytes if file else 0

    async def _unless_absent(self, path: str, error: NetworkError) -> ModelFileError:
        """Return what is wrong without a network: that, unless the file never was there."""
        is_refused = isinstance(error, NOT_THERE)
        if is_refused or not await self._storage.files.is_absent(self.url, path):
            return error
        return MissingFileError(
            f"{self.url}{path} did not exist when its server was last asked, and cannot be asked "
            "for now. Check the network."
        )

    async def _fetched_text(self, remote: RemoteFile) -> str:
        return await self._decoded(await self._fetch(remote))

    async def _decoded(self, file: StoredFile) -> str:
        path = file.record.path
        data = to_bytes(await self._read(path, 0, file.size))
        return decode_text(data, f"{self.url}{path}")


def _summed(on_bytes: OnBytes | None) -> Advance:
    """Return a function that takes differences and tells `on_bytes` their sum."""
    total = 0

    def advance(n: int) -> None:
        nonlocal total
        total += n
        if on_bytes is not None:
            on_bytes(total)

    return advance
