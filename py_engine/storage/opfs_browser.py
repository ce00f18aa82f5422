"""Blobs in the origin private file system: a directory for each folder, a file for each blob."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import js
from pyodide.ffi import JsException

from py_engine.errors import StorageError, StorageFullError
from py_engine.storage.bytes_browser import array_of
from py_engine.storage.errors_browser import storage_error, told_as_ours
from py_engine.storage.source import HostBytes
from py_engine.storage.tasks import run_to_end

_ROOT = "pywebllm-models"
_UNFINISHED = ".part"
_FILES_OPEN = 64

_ANSWER_S = 60

# The file of a tab that was just closed stays locked for a moment.
_LOCKED_TRIES, _LOCKED_S = 10, 0.2


class OpfsBlobs:
    """Implements `blobs.BlobStore`.

    Bytes are written through a sync access handle, which can flush them to the disk, into a file
    that then gets its name. Pages and service workers have none; there, a writable stream's file
    appears whole as well.
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

    async def put(self, folder: str, name: str, data: HostBytes) -> None:
        """Keep a new blob."""
        # Whoever is cancelled between would leave the file open, and locked for the next one.
        await run_to_end(self._put(folder, name, data))

    async def _put(self, folder: str, name: str, data: HostBytes) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                directory = await self._root.getDirectoryHandle(folder, create=True)
                if hasattr(js, "FileSystemSyncAccessHandle"):
                    await _write_in_place(directory, name, array_of(data))
                else:
                    await _write_stream(directory, name, array_of(data))
        except TimeoutError as error:
            raise StorageFullError(
                f"The browser did not store {name} in {_ANSWER_S} s, as happens when a site has no "
                "more room. Delete a stored model, or free space on the device."
            ) from error
        except JsException as error:
            raise storage_error(error) from error

    async def get(
        self, folder: str, name: str, begin: int = 0, end: int | None = None
    ) -> HostBytes | None:
        """Return a range of a blob."""
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
        if names is None:
            await remove_entry(self._root, folder)
            return
        try:
            directory = await self._root.getDirectoryHandle(folder)
        except JsException as error:
            if error.name == "NotFoundError":
                return
            raise storage_error(error) from error
        for name in names:
            self._files.pop((folder, name), None)
            await remove_entry(directory, name)

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


async def _write_in_place(directory: Any, name: str, array: Any) -> None:
    unfinished = name + _UNFINISHED
    handle = await directory.getFileHandle(unfinished, create=True)
    access = await access_handle(handle)
    try:
        access.truncate(0)
        written = access.write(array, at=0)
        access.flush()
    finally:
        access.close()
    # Without room Chromium returns an error's number, throws nothing, and as long as the file is
    # there does not answer to whatever comes next.
    if written != array.length:
        await remove_entry(directory, unfinished)
        raise StorageFullError(
            f"The browser did not store all of {name}: it gives this site no more room. Delete a "
            "stored model, or free space on the device."
        )
    await handle.move(name)


async def _write_stream(directory: Any, name: str, array: Any) -> None:
    stream = await (await directory.getFileHandle(name, create=True)).createWritable()
    await stream.write(array)
    await stream.close()


async def access_handle(handle: Any) -> Any:
    """Return a file's sync access handle. Raises JsException, when another has one for long."""
    for _ in range(_LOCKED_TRIES):
        try:
            return await handle.createSyncAccessHandle()
        except JsException as error:
            if error.name != "NoModificationAllowedError":
                raise
            await asyncio.sleep(_LOCKED_S)
    return await handle.createSyncAccessHandle()


async def keys_of(directory: Any) -> list[str]:
    """Return the names of all that a directory has."""
    return [str(name) async for name in directory.keys()]


async def remove_entry(directory: Any, name: str) -> None:
    """Delete a file or a whole directory, if there is one of that name. Raises StorageError."""
    try:
        await directory.removeEntry(name, recursive=True)
    except JsException as error:
        if error.name != "NotFoundError":
            raise storage_error(error) from error
