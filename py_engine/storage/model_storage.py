"""All models in one store: opening one, listing them, deleting them, and the room there is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from py_engine.errors import StorageBusyError, StorageError, StorageFullError
from py_engine.storage.download import Downloader, RemoteFile
from py_engine.storage.expected import LISTING_NOTE, MLC_INDEX_FILES, WANTED_NOTE, mlc_shards
from py_engine.storage.host_bytes import to_bytes
from py_engine.storage.identity import Identity
from py_engine.storage.known_files import RemoteSource
from py_engine.storage.locks import Locks
from py_engine.storage.other_store import OtherStore
from py_engine.storage.store import FileStore, LostPieceError, StoredFile
from py_engine.storage.stored_source import StoredSource
from py_engine.storage.tasks import run_together
from py_engine.storage.transport import Request

logger = logging.getLogger(__name__)

_NOTES = (LISTING_NOTE, WANTED_NOTE)


class Room(Protocol):
    """How much more the browser lets this site store."""

    async def free_bytes(self) -> int | None:
        """Return the bytes; None where the browser does not tell."""
        ...


@dataclass(frozen=True)
class StoredModel:
    """A model in the store. `url` is its folder's; `is_complete` when all of it is there, verified.

    `files` has the bytes that are there by path, `total_bytes` counts what loading the model needs.
    """

    url: str
    files: dict[str, int]
    total_bytes: int
    is_complete: bool

    @property
    def stored_bytes(self) -> int:
        """How many bytes of the model are there."""
        return sum(self.files.values())


class ModelStorage:
    """The models in `files`. `backend` is what `AppConfig.cacheBackend` calls the kind of store."""

    def __init__(
        self,
        files: FileStore,
        downloader: Downloader,
        locks: Locks,
        room: Room,
        other: OtherStore | None = None,
    ) -> None:
        self.files = files
        self.downloader = downloader
        self._locks = locks
        self._room = room
        self._other = other

    @property
    def backend(self) -> str:
        """The kind of store, as in `AppConfig.cacheBackend`."""
        return self.files.blobs.backend if self.files.shared is None else "cross-origin"

    def open(self, remote: RemoteSource) -> StoredSource:
        """Return a source that keeps what it reads of `remote`."""
        return StoredSource(remote, self)

    async def models(self) -> list[StoredModel]:
        """Return all models, also those that are there in part."""
        by_url: dict[str, dict[str, StoredFile]] = {}
        for file in await self.files.files():
            by_url.setdefault(file.record.url, {})[file.record.path] = file
        return [await _summary(url, files) for url, files in sorted(by_url.items())]

    async def has(self, url: str, paths: Iterable[str] | None = None) -> bool:
        """Whether files are there, verified; by default all that loading the model needs.

        Files that WebLLM downloaded count where `paths` names them.
        """
        if paths is None:
            return any(model.url == url and model.is_complete for model in await self.models())
        for path in paths:
            file = await self.files.find(url, path)
            is_here = file is not None and file.is_verified
            if not is_here and not (self._other and await self._other.has(f"{url}{path}")):
                return False
        return True

    async def other_paths(self, url: str) -> list[str]:
        """Return the files of a model that WebLLM stored."""
        return [] if self._other is None else await self._other.paths(url)

    async def has_other_weights(self, url: str) -> bool:
        """Whether WebLLM stored a model's index, and all weights that it names are there."""
        for path in MLC_INDEX_FILES:
            index = await self._other.get(f"{url}{path}") if self._other else None
            if index is not None and (shards := mlc_shards(to_bytes(index.data))):
                return await self.has(url, shards)
        return False

    async def delete(self, url: str, paths: Iterable[str] | None = None) -> int:
        """Delete a model, or only some of its files; return how many bytes that set free.

        What WebLLM stored of them goes, too. Errors: StorageBusyError while a tab downloads one
        of the files.
        """
        files = {f.record.path: f for f in await self.files.files() if f.record.url == url}
        wanted = None if paths is None else set(paths)
        gone = files.keys() & (files if wanted is None else wanted)
        if not files.keys() - gone - set(_NOTES):  # notes are of use beside files only
            gone |= files.keys() & set(_NOTES)
            for path in await self.files.absences(url):
                await self.files.discard(url, path)
        for path in sorted(gone):
            await self._delete_file(url, path)
        freed = sum(files[path].stored_bytes for path in gone)
        if self._other is not None:
            freed += await self._other.delete(url, wanted)
        return freed

    async def find(self, url: str, paths: Iterable[str]) -> dict[str, StoredFile]:
        """Return some files of a model, as far as they are stored."""
        files = await run_together(self.files.find(url, path) for path in paths)
        return {file.record.path: file for file in files if file is not None}

    async def read_note(self, url: str, path: str) -> str | None:
        """Return a text that was kept beside a model's files."""
        file = await self.files.find(url, path)
        return await _text(file)

    async def write_note(self, url: str, path: str, text: str) -> None:
        """Keep a text beside a model's files, if there is room: a stored model loads without it."""
        if await self.read_note(url, path) == text:
            return
        data = text.encode()
        async with self._locks.hold(f"pywebllm:{url}{path}"):
            try:
                file = await self.files.create(url, path, Identity(len(data)), max(1, len(data)))
                await file.write(0, data)
                await file.finish({})
            except StorageError as error:
                logger.warning("%s%s is not kept: %s", url, path, error)

    async def check_room(self, url: str, needed: int) -> None:
        """Raise StorageFullError unless the browser lets us store `needed` bytes more."""
        free = await self._room.free_bytes()
        if free is not None and needed > max(free, 0):
            raise await self.full_error(url, needed)

    async def full_error(self, url: str, needed: int) -> StorageFullError:
        """Return the error for a model that does not fit, with what could be deleted for it."""
        free = await self._room.free_bytes()
        others = [model for model in await self.models() if model.url != url]
        named = ", ".join(
            f"{model.url} ({_megabytes(model.stored_bytes)})"
            for model in sorted(others, key=lambda model: -model.stored_bytes)
        )
        remedy = f"Delete a stored model: {named}." if named else "No other model is stored."
        # Browsers blur their estimate, so that it may promise more than there is.
        left = "less" if free is None or free >= needed else f"only {_megabytes(free)}"
        return StorageFullError(
            f"{url} needs {_megabytes(needed)} more, but the browser lets this site store {left}. "
            f"{remedy} Or free space on the device, or choose a smaller model; what was downloaded "
            "is kept."
        )

    async def _delete_file(self, url: str, path: str) -> None:
        async with self._locks.try_hold(RemoteFile(url, path, Request("")).lock) as is_free:
            if not is_free:
                raise StorageBusyError(
                    f"{url}{path} is being downloaded, here or in another tab. Stop loading the "
                    "model there, then delete it."
                )
            await self.files.discard(url, path)


async def _summary(url: str, files: dict[str, StoredFile]) -> StoredModel:
    note, _ = files.pop(WANTED_NOTE, None), files.pop(LISTING_NOTE, None)
    stored = {path: file.stored_bytes for path, file in files.items()}
    total = sum(file.size for file in files.values())
    text = await _text(note)
    if text is None:
        return StoredModel(url, stored, total, False)
    wanted: dict[str, int] = json.loads(text)
    is_complete = all(path in files and files[path].is_verified for path in wanted)
    missing = sum(size for path, size in wanted.items() if path not in files)
    return StoredModel(url, stored, total + missing, is_complete)


async def _text(note: StoredFile | None) -> str | None:
    """Return a note's text; None where there is none, or another tab is writing it."""
    if note is None or not note.is_verified:
        return None
    try:
        return to_bytes(await note.read(0, note.size)).decode()
    except LostPieceError:
        return None


def _megabytes(n: int) -> str:
    return f"{n / 1e6:,.0f} MB" if n < 1e10 else f"{n / 1e9:,.0f} GB"
