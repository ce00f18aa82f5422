"""Files of any size in a `BlobStore`: each is a record, pieces of one length, a mark at its end.

A file's blobs lie in a folder of their own and begin with its generation, which is new whenever the
content on the server is: pieces of two versions never meet.

| blob | when it is there |
|---|---|
| `GENERATION.file` | from the first moment on: JSON of address, identity and length of a piece |
| `GENERATION.INDEX.LENGTH.piece` | as soon as that piece is there whole (`BlobStore.put`) |
| `GENERATION.done` | when the content was verified: JSON of its hashes |
| `absent` | instead of all these, when the server has no such file |

So what is stored says for itself what is missing: there is no journal that could disagree with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from py_engine.errors import StorageError
from py_engine.storage.blobs import BlobStore
from py_engine.storage.host_bytes import cut, join_bytes, to_bytes
from py_engine.storage.identity import HASHES, Identity
from py_engine.storage.shared_files import SharedFiles
from py_engine.storage.source import HostBytes

logger = logging.getLogger(__name__)

_ABSENT = "absent"

_MOST_FRESH = 8
"""Pieces that memory has for those who read a file while it comes."""


class LostPieceError(Exception):
    """A piece that was stored is gone: deleted by another tab, or evicted by the browser."""


@dataclass(frozen=True)
class FileRecord:
    """What is known of a stored file: the model's folder, the path in it, content, piece length."""

    url: str
    path: str
    identity: Identity
    piece_bytes: int

    def to_json(self) -> str:
        """Return the record as it is stored."""
        return json.dumps({**vars(self), "identity": self.identity.to_dict()})

    @staticmethod
    def from_json(text: str) -> FileRecord:
        """Read what `to_json` made. Raises ValueError, KeyError or TypeError for anything else."""
        data = json.loads(text)
        identity = Identity.from_dict(data["identity"])
        return FileRecord(data["url"], data["path"], identity, data["piece_bytes"])


@dataclass
class StoredFile:
    """A file in the store, as far as it is there. `pieces` are the indices of its whole pieces.

    `n_drops` counts how often some were dropped since. Where sites share files (`shared`), a
    verified file moves there, and only its mark stays.
    """

    blobs: BlobStore
    folder: str
    generation: str
    record: FileRecord
    pieces: set[int] = field(default_factory=set)
    is_verified: bool = False
    shared: SharedFiles | None = None
    is_shared: bool = False
    n_drops: int = field(default=0, compare=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)
    _fresh: dict[int, HostBytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def identity(self) -> Identity:
        """The content that the file has, or will have when it is complete."""
        return self.record.identity

    @property
    def size(self) -> int:
        """The length of the complete file in bytes."""
        return self.record.identity.size

    @property
    def n_pieces(self) -> int:
        """The number of pieces of the complete file; an empty file has one."""
        return max(1, -(-self.size // self.record.piece_bytes))

    @property
    def stored_bytes(self) -> int:
        """How many bytes of the file are there."""
        return sum(end - begin for begin, end in map(self.span, self.pieces))

    def span(self, index: int) -> tuple[int, int]:
        """Return begin and end of a piece, in bytes of the file."""
        begin = index * self.record.piece_bytes
        return begin, min(begin + self.record.piece_bytes, self.size)

    def covering(self, begin: int, end: int) -> range:
        """Return the pieces that a range of the file lies in, at least one."""
        step = self.record.piece_bytes
        first = min(begin // step, self.n_pieces - 1)
        return range(first, max(-(-min(end, self.size) // step), first + 1))

    async def write(self, index: int, data: HostBytes) -> None:
        """Keep a piece. Raises StorageFullError."""
        self._fresh[index] = await self.blobs.put(self.folder, self._piece(index), data)
        if len(self._fresh) > _MOST_FRESH:
            del self._fresh[next(iter(self._fresh))]
        self.pieces.add(index)
        self.wake()

    async def news(self) -> None:
        """Wait for the next piece, or for `wake`."""
        await self._news.wait()

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def read(self, begin: int, end: int) -> HostBytes:
        """Return a range of what is there. Raises LostPieceError."""
        if self.is_shared and self.shared is not None:
            data = await self.shared.read(self.identity.sha256, begin, end)
            if data is None:
                raise LostPieceError(self.record.path)
            return data
        step = self.record.piece_bytes
        parts = []
        for index in self.covering(begin, end):
            offset = index * step
            name, first = self._piece(index), max(begin - offset, 0)
            part = await self.blobs.get(self.folder, name, first, min(end - offset, step))
            if part is None:
                raise LostPieceError(f"{self.record.path}: {name}")
            parts.append(part)
        return join_bytes(parts)

    async def take(self, begin: int, end: int) -> HostBytes:
        """Do as `read`, but from memory where that has a piece since it was written.

        It is forgotten then: who loads a model reads each piece once, soon after it has come.
        """
        index, *others = self.covering(begin, end)
        data = None if others else self._fresh.pop(index, None)
        if data is None:
            return await self.read(begin, end)
        first, last = self.span(index)
        return data if (begin, end) == (first, last) else cut(data, begin - first, end - first)

    def expect(self, expected: Identity | None) -> None:
        """Take over the hashes that the content must have, and that have to be checked."""
        self.is_verified = False
        if expected is None:
            return
        hashes: dict[str, Any] = {
            name: getattr(expected, name) for name in HASHES if getattr(expected, name)
        }
        if expected.piece_bytes == self.record.piece_bytes:
            hashes["pieces"] = expected.pieces
        self.record = replace(self.record, identity=replace(self.identity, **hashes))

    async def finish(self, digests: dict[str, str]) -> None:
        """Note that the content was verified, and its hashes."""
        self._fresh.clear()
        self._learn(digests)
        if self.shared is not None and digests and not self.is_shared:
            await self._share(self.shared)
        await self.blobs.delete(self.folder, [f"{self.generation}.done"])
        await self._put_json("done", json.dumps({**digests, "is_shared": self.is_shared}))
        if self.is_shared:
            await self.blobs.delete(self.folder, [*map(self._piece, self.pieces)])

    async def take_shared(self, sha256: str) -> bool:
        """Become the file of that hash that sites share; return whether there is one."""
        if self.shared is None or not sha256 or not await self.shared.has(sha256):
            return False
        self.is_shared = True
        self.pieces = set(range(self.n_pieces))
        await self.finish({"sha256": sha256})
        return True

    async def _share(self, shared: SharedFiles) -> None:
        try:
            parts = (await self.read(*self.span(index)) for index in range(self.n_pieces))
            await shared.put(self.identity.sha256, parts)
        except StorageError as error:
            logger.warning("%s stays with this site: %s", self.record.path, error)
        else:
            self.is_shared = True

    async def drop(self, indices: Iterable[int]) -> None:
        """Delete pieces."""
        gone = set(indices)
        self._fresh.clear()
        self.n_drops += 1
        self.pieces -= gone  # nobody reads them while they are being deleted
        await self.blobs.delete(self.folder, [self._piece(index) for index in gone])

    async def reload(self) -> None:
        """Look again which pieces are there, and whether the file is verified."""
        names = set(await self.blobs.names(self.folder))
        self.pieces = {index for index in range(self.n_pieces) if self._piece(index) in names}
        digests = await _read_json(self.blobs, self.folder, f"{self.generation}.done")
        if not isinstance(digests, dict):
            return
        if digests.pop("is_shared", False) and self.shared is not None:
            self.is_shared = await self.shared.has(digests.get("sha256", ""))
            self.pieces |= set(range(self.n_pieces)) if self.is_shared else set()
        if len(self.pieces) == self.n_pieces:
            self._learn(digests)

    async def save_record(self) -> None:
        """Keep the record, with which the file begins to exist."""
        await self._put_json("file", self.record.to_json())

    def _learn(self, digests: Mapping[str, Any]) -> None:
        self.is_verified = True
        self.record = replace(self.record, identity=replace(self.identity, **digests))

    def _piece(self, index: int) -> str:
        begin, end = self.span(index)
        return f"{self.generation}.{index}.{end - begin}.piece"

    async def _put_json(self, kind: str, text: str) -> None:
        await self.blobs.put(self.folder, f"{self.generation}.{kind}", text.encode())


class FileStore:
    """The files of all models in one `BlobStore`, by the address of the model's folder and path.

    `shared` takes verified files, where sites share them.
    """

    def __init__(self, blobs: BlobStore, shared: SharedFiles | None = None) -> None:
        self.blobs = blobs
        self.shared = shared

    async def find(self, url: str, path: str) -> StoredFile | None:
        """Return the file as far as it is stored; None where nothing of it is."""
        return await self._load(folder_of(url, path))

    async def create(self, url: str, path: str, identity: Identity, piece_bytes: int) -> StoredFile:
        """Begin a file; whatever was stored of it before is deleted. Raises StorageFullError."""
        folder = folder_of(url, path)
        await self.blobs.delete(folder)
        record = FileRecord(url, path, identity, identity.piece_bytes or piece_bytes)
        file = StoredFile(self.blobs, folder, os.urandom(6).hex(), record, shared=self.shared)
        await file.save_record()
        return file

    async def discard(self, url: str, path: str) -> None:
        """Delete all of a file."""
        await self.blobs.delete(folder_of(url, path))

    async def set_absent(self, url: str, path: str) -> None:
        """Note that the server has no such file, in place of what was stored of it."""
        folder = folder_of(url, path)
        await self.blobs.delete(folder)
        note = json.dumps({"url": url, "path": path})
        try:
            await self.blobs.put(folder, _ABSENT, note.encode())
        except StorageError as error:  # which only matters without a network
            logger.warning("it could not be noted that %s%s does not exist: %s", url, path, error)

    async def is_absent(self, url: str, path: str) -> bool:
        """Whether the server had no such file when it was last asked."""
        return _ABSENT in await self.blobs.names(folder_of(url, path))

    async def absences(self, url: str) -> list[str]:
        """Return the paths that a model's server is known not to have."""
        found = [
            await _read_json(self.blobs, folder, _ABSENT) for folder in await self.blobs.folders()
        ]
        return [note["path"] for note in found if isinstance(note, dict) and note["url"] == url]

    async def files(self) -> list[StoredFile]:
        """Return all files of all models, complete or not."""
        found = [await self._load(folder) for folder in await self.blobs.folders()]
        return [file for file in found if file is not None]

    async def _load(self, folder: str) -> StoredFile | None:
        records = [name for name in await self.blobs.names(folder) if name.endswith(".file")]
        if len(records) != 1:
            return None
        data = await self.blobs.get(folder, records[0])
        try:
            record = FileRecord.from_json(to_bytes(data).decode())
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        generation = records[0].partition(".")[0]
        file = StoredFile(self.blobs, folder, generation, record, shared=self.shared)
        await file.reload()
        return file


def folder_of(url: str, path: str) -> str:
    """Return the name of a file's folder in the store."""
    return hashlib.sha256(f"{url}\n{path}".encode()).hexdigest()[:32]


async def _read_json(blobs: BlobStore, folder: str, name: str) -> Any:
    data = await blobs.get(folder, name)
    if data is None:
        return None
    try:
        return json.loads(to_bytes(data))
    except ValueError:
        return None
