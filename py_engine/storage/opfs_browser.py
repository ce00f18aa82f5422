"""Blobs in the origin private file system: a directory for each folder, a file for each blob."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import js
import pywebllm_worker
from pyodide.ffi import JsException

from py_engine.errors import StorageError, StorageFullError
from py_engine.storage.bytes_browser import array_of
from py_engine.storage.errors_browser import storage_error, told_as_ours
from py_engine.storage.source import HostBytes
from py_engine.storage.tasks import run_to_end

T = TypeVar("T")

_ROOT = "pywebllm-models"
_UNFINISHED = ".part"
_FILES_OPEN = 64

_ANSWER_S = 60

_FOR_THREAD_BYTES = 1 << 20
"""Of a range that a thread reads: for a short one it is not worth opening a file."""

_LOCKED = "NoModificationAllowedError"
_NO_THREAD = "NoThread"

# A file of a tab that was just closed stays locked for a moment, and one that is being read.
_LOCKED_TRIES, _LOCKED_S = 10, 0.2


class OpfsBlobs:
    """Implements `blobs.BlobStore`.

    A thread writes them through a sync access handle, which can flush them to the disk, into a file
    that then gets its name, and reads long ranges (`worker/blob_thread_worker.mjs`). Pages and
    service workers have none; there, a writable stream's file appears whole as well.
    """

    backend = "opfs"

    def __init__(self, root: Any) -> None:
        self._root = root
        self._files: dict[tuple[str, str], Any] = {}

    @staticmethod
    async def open() -> OpfsBlobs:
        """Return the site's store. Raises StorageError where there is none."""
        try:
            top = await js.navigator.storage.getDirectory()
            return OpfsBlobs(await top.getDirectoryHandle(_ROOT, create=True))
        except JsException as error:
            raise storage_error(error) from error
        except AttributeError as error:
            raise StorageError("This browser has no origin private file system.") from error

    async def put(self, folder: str, name: str, data: HostBytes) -> HostBytes:
        """Keep a new blob."""
        # A write that nobody waits for would leave the file open, and locked for the next one.
        return await run_to_end(self._put(folder, name, array_of(data).buffer))

    async def _put(self, folder: str, name: str, buffer: Any) -> HostBytes:
        try:
            async with asyncio.timeout(_ANSWER_S):
                if hasattr(js, "FileSystemSyncAccessHandle"):
                    with _going_on_after(_NO_THREAD):
                        path, unfinished = f"{_ROOT}/{folder}", name + _UNFINISHED
                        return await pywebllm_worker.writeBlob(path, name, unfinished, buffer)
                await self._write_stream(folder, name, buffer)
                return buffer
        except TimeoutError as error:
            pywebllm_worker.endBlobThread()  # or it might still write when all else is deleted
            raise StorageFullError(
                f"The browser did not store {name} in {_ANSWER_S} s, as happens when a site has no "
                "more room. Delete a stored model, or free space on the device."
            ) from error
        except JsException as error:
            raise storage_error(error) from error

    async def _write_stream(self, folder: str, name: str, buffer: Any) -> None:
        directory = await self._root.getDirectoryHandle(folder, create=True)
        stream = await (await directory.getFileHandle(name, create=True)).createWritable()
        await stream.write(buffer)
        await stream.close()

    async def get(
        self, folder: str, name: str, begin: int = 0, end: int | None = None
    ) -> HostBytes | None:
        """Return a range of a blob."""
        if end is not None and end - begin >= _FOR_THREAD_BYTES and _can_share_handles():
            with suppress(JsException):  # what is wrong with the file shows below, too
                return await pywebllm_worker.readBlob(f"{_ROOT}/{folder}", name, begin, end)
        file = self._files.pop((folder, name), None)
        data = None if file is None else await _part(file, begin, end)
        if data is None:  # not open yet, or written anew by another tab
            file = await self._open(folder, name)
            data = None if file is None else await _part(file, begin, end)
        if data is None:
            return None
        self._files[folder, name] = file
        if len(self._files) > _FILES_OPEN:
            del self._files[next(iter(self._files))]
        return data

    async def folders(self) -> list[str]:
        """Return the folders that have blobs."""
        with told_as_ours():
            return await keys_of(self._root)

    async def names(self, folder: str) -> list[str]:
        """Return the names of a folder's blobs."""
        try:
            found = await keys_of(await self._root.getDirectoryHandle(folder))
        except JsException as error:
            if error.name == "NotFoundError":
                return []
            raise storage_error(error) from error
        return [name for name in found if not name.endswith(_UNFINISHED)]

    async def delete(self, folder: str, names: Sequence[str] | None = None) -> None:
        """Delete blobs, or a whole folder."""
        try:
            if names is None:
                await self._delete_folder(folder)
                return
            directory = await self._root.getDirectoryHandle(folder)
            for name in names:
                self._files.pop((folder, name), None)
                await remove_entry(directory, name)
        except JsException as error:
            if error.name != "NotFoundError":
                raise storage_error(error) from error

    async def _delete_folder(self, folder: str) -> None:
        with _going_on_after(_LOCKED):
            await self._root.removeEntry(folder, recursive=True)
            return
        # Another tab reads it: at any moment it has some file open, but none for long.
        directory = await self._root.getDirectoryHandle(folder)
        for name in await keys_of(directory):
            await remove_entry(directory, name)
        await remove_entry(self._root, folder)

    async def _open(self, folder: str, name: str) -> Any:
        try:
            directory = await self._root.getDirectoryHandle(folder)
            return await (await directory.getFileHandle(name)).getFile()
        except JsException as error:
            _require_gone(error)
            return None


async def _part(file: Any, begin: int, end: int | None) -> HostBytes | None:
    try:
        return await file.slice(begin, file.size if end is None else end).arrayBuffer()
    except JsException as error:
        _require_gone(error)
        return None


def _require_gone(error: JsException) -> None:
    """Raise our error unless a file is only not there, or was written anew."""
    if error.name not in ("NotFoundError", "NotReadableError"):
        raise storage_error(error) from error


def _can_share_handles() -> bool:
    """Whether several tabs can have access handles of one file, to read it; some browsers' lock."""
    handles = getattr(js, "FileSystemSyncAccessHandle", None)
    return handles is not None and js.Reflect.has(handles.prototype, "mode")


@contextmanager
def _going_on_after(name: str) -> Iterator[None]:
    """Go on after the block when it raises a JavaScript error of this name."""
    try:
        yield
    except JsException as error:
        if error.name != name:
            raise


async def access_handle(handle: Any) -> Any:
    """Return a file's sync access handle. Raises JsException, when another has one for long."""
    return await _when_unlocked(handle.createSyncAccessHandle)


async def keys_of(directory: Any) -> list[str]:
    """Return the names of all that a directory has."""
    return [str(name) async for name in directory.keys()]


async def remove_entry(directory: Any, name: str) -> None:
    """Delete a file or a whole directory, if there is one of that name. Raises StorageError."""
    try:
        await _when_unlocked(lambda: directory.removeEntry(name, recursive=True))
    except JsException as error:
        if error.name != "NotFoundError":
            raise storage_error(error) from error


async def _when_unlocked(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return the result, tried again as long as somebody else has a file open for a moment."""
    for _ in range(_LOCKED_TRIES):
        try:
            return await attempt()
        except JsException as error:
            if error.name != _LOCKED:
                raise
            await asyncio.sleep(_LOCKED_S)
    return await attempt()
