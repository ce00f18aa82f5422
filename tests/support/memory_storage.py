"""A browser's storage and network in memory, which a test can end at any moment."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from py_engine.errors import NetworkError, StorageFullError
from py_engine.storage.download import Downloader
from py_engine.storage.fetcher import Clock, Fetcher, RetryPolicy
from py_engine.storage.http_errors import Headers, status_error
from py_engine.storage.identity import Identity
from py_engine.storage.locks import LocalLocks, Locks
from py_engine.storage.model_storage import ModelStorage
from py_engine.storage.other_store import OtherFile, OtherStore
from py_engine.storage.shared_files import SharedFiles
from py_engine.storage.source import FileInfo, OnBytes
from py_engine.storage.store import FileStore, folder_of
from py_engine.storage.stored_source import StoredSource
from py_engine.storage.transport import BodyBrokenError, Request
from tests.support.faulty_files import Answer, FaultyFiles
from tests.support.memory_source import MemorySource

URL = "https://models.test/model/"
_CHUNK_BYTES = 700


class KilledError(BaseException):
    """The tab was closed."""


class Fuse:
    """Ends everything at the `n`-th thing that happens, and from then on."""

    def __init__(self, n: int | None = None) -> None:
        self.left = n

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KilledError


@dataclass
class MemoryBlobs:
    """A `BlobStore`; `capacity` bytes fit. `data` outlives whoever uses it."""

    data: dict[str, dict[str, bytes]] = field(default_factory=dict)
    fuse: Fuse = field(default_factory=Fuse)
    capacity: int | None = None
    backend: str = "memory"

    async def put(self, folder: str, name: str, data: bytes) -> bytes:
        await asyncio.sleep(0)
        self.fuse.burn()
        if self.capacity is not None and self.used() + len(data) > self.capacity:
            raise StorageFullError("full")
        assert name not in self.data.get(folder, {}), "blobs are never written over"
        self.data.setdefault(folder, {})[name] = data
        self.fuse.burn()
        return data

    async def get(
        self, folder: str, name: str, begin: int = 0, end: int | None = None
    ) -> bytes | None:
        await asyncio.sleep(0)
        self.fuse.burn()
        found = self.data.get(folder, {}).get(name)
        return None if found is None else found[begin:end]

    async def folders(self) -> list[str]:
        return list(self.data)

    async def names(self, folder: str) -> list[str]:
        self.fuse.burn()
        return list(self.data.get(folder, {}))

    async def delete(self, folder: str, names: Sequence[str] | None = None) -> None:
        self.fuse.burn()
        for name in list(self.data.get(folder, {})) if names is None else names:
            self.data.get(folder, {}).pop(name, None)
            self.fuse.burn()
        if not self.data.get(folder, True):
            del self.data[folder]

    def used(self) -> int:
        return sum(len(data) for blobs in self.data.values() for data in blobs.values())

    def pieces(self, path: str, url: str = URL) -> dict[int, int]:
        """Return the lengths of a file's stored pieces by index."""
        names = [name.split(".") for name in self.data.get(folder_of(url, path), {})]
        return {int(name[1]): int(name[2]) for name in names if name[-1] == "piece"}


class MemoryTransport:
    """A `Transport` to `server`, whose files are below `base`. `opened` counts open answers."""

    def __init__(self, server: FaultyFiles, fuse: Fuse | None = None, base: str = URL) -> None:
        self.server = server
        self.fuse = fuse or Fuse()
        self.base = base
        self.online = True
        self.open = 0
        self.most_open = 0

    async def get(
        self, request: Request, begin: int | None, end: int, stall_s: float
    ) -> MemoryResponse:
        await asyncio.sleep(0)
        self.fuse.burn()
        path = request.url.removeprefix(self.base)
        answer = self.server.answer(path, begin, end) if self.online else None
        if answer is None:
            raise NetworkError(f"{request.shown} could not be fetched")
        if answer.status not in (200, 206, 416):
            headers = {name.lower(): value for name, value in answer.headers.items()}
            raise request.refusal(request.shown, answer.status, headers.get)
        return MemoryResponse(answer, self)


class MemoryResponse:
    def __init__(self, answer: Answer, transport: MemoryTransport) -> None:
        self._answer = answer
        self._transport = transport
        self._at = 0
        self._is_open = True
        self.status = answer.status
        transport.open += 1
        transport.most_open = max(transport.most_open, transport.open)

    def header(self, name: str) -> str | None:
        headers = {key.lower(): value for key, value in self._answer.headers.items()}
        return headers.get(name)

    async def read(self, n: int, on_bytes: OnBytes | None = None) -> bytes:
        assert self._is_open
        begin = self._at
        while self._at < min(begin + n, len(self._answer.body)):
            await asyncio.sleep(0)
            self._transport.fuse.burn()
            self._at = min(self._at + _CHUNK_BYTES, begin + n, len(self._answer.body))
            if on_bytes is not None:
                on_bytes(self._at - begin)
        data = self._answer.body[begin : self._at]
        if len(data) < n and self._answer.end != "end":
            raise BodyBrokenError(f"the connection went {self._answer.end}", data)
        return data

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._transport.open -= 1


class RemoteFiles(MemorySource):
    """A source whose `request` leads to a transport; `listed` says whether it lists its files."""

    def __init__(self, transport: MemoryTransport, *, listed: bool = True, url: str = URL) -> None:
        super().__init__(transport.server.files, url)
        self.transport = transport
        self.listed = listed

    async def list_files(self) -> dict[str, FileInfo] | None:  # type: ignore[override]
        if not self.listed:
            return None
        if not self.transport.online:
            raise NetworkError("no network")
        self.files = dict(self.transport.server.files)
        return await super().list_files()

    def request(self, path: str) -> tuple[str, dict[str, str]]:
        return f"{self.url}{path}", {}

    def refusal(self, address: str, status: int, header: Headers) -> Exception:
        return status_error(address, status, header)


class Waits:
    """A clock that does not wait; `slept` has what it should have waited, in seconds."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.time = 1e9

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        return Clock(self.sleep, lambda: self.time, lambda: 0.5)


class OtherFiles:
    """An `OtherStore`, with its files by URL."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    async def has(self, url: str) -> bool:
        return url in self.files

    async def get(self, url: str) -> OtherFile | None:
        data = self.files.get(url)
        return None if data is None else OtherFile(data, Identity(len(data)))

    async def paths(self, folder_url: str) -> list[str]:
        return [url.removeprefix(folder_url) for url in self.files if url.startswith(folder_url)]

    async def delete(self, folder_url: str, paths: Collection[str] | None = None) -> int:
        gone = [p for p in await self.paths(folder_url) if paths is None or p in paths]
        return sum(len(self.files.pop(folder_url + path)) for path in gone)


class MemoryRoom:
    def __init__(self, free: int | None = None) -> None:
        self.free = free

    async def free_bytes(self) -> int | None:
        return self.free


def memory_storage(
    blobs: MemoryBlobs,
    transport: MemoryTransport,
    *,
    piece_bytes: int = 1000,
    locks: Locks | None = None,
    room: MemoryRoom | None = None,
    other: OtherStore | None = None,
    policy: RetryPolicy | None = None,
    waits: Waits | None = None,
    in_flight: int = 6,
    shared: SharedFiles | None = None,
) -> ModelStorage:
    """Return a storage over memory, as one tab has it."""
    files = FileStore(blobs, shared)
    locks = locks or LocalLocks()
    fetcher = Fetcher(transport, policy or RetryPolicy(), (waits or Waits()).clock())
    downloader = Downloader(
        files, fetcher, locks, in_flight=in_flight, piece_bytes=piece_bytes, other=other
    )
    return ModelStorage(files, downloader, locks, room or MemoryRoom(), other)


def memory_source(
    blobs: MemoryBlobs, transport: MemoryTransport, *, listed: bool = True, **options: object
) -> StoredSource:
    """Return the model at `URL` as one tab has it."""
    storage = memory_storage(blobs, transport, **options)  # type: ignore[arg-type]
    return StoredSource(RemoteFiles(transport, listed=listed), storage)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
