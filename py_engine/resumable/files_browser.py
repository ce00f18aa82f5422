"""Sessions in the origin private file system, in `webllm-resume/sessions/<id>/` as WebLLM's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import js
from pyodide.ffi import JsException

from py_engine.errors import CrossContextLockUnavailableError, StorageError, StorageFullError
from py_engine.resumable.files import JournalFile
from py_engine.storage.bytes_browser import array_of
from py_engine.storage.errors_browser import storage_error, told_as_ours
from py_engine.storage.locks_browser import WebLocks
from py_engine.storage.opfs_browser import access_handle, keys_of, remove_entry

_FOLDERS = ("webllm-resume", "sessions")
_LOCK_PREFIX = "webllm-resumable:"
_ANSWER_S = 10


class OpfsSessions:
    """Implements `files.SessionFiles`."""

    def __init__(self, root: Any) -> None:
        self._root = root

    @staticmethod
    async def open() -> OpfsSessions:
        """Return the site's sessions. Raises StorageError where there is no such file system."""
        try:
            async with _answered():
                return OpfsSessions(await js.navigator.storage.getDirectory())
        except AttributeError as error:
            raise StorageError("This browser has no origin private file system.") from error

    @asynccontextmanager
    async def try_hold(self, session_id: str) -> AsyncIterator[bool]:
        """Hold a session's lock, which WebLLM's engines respect too."""
        path = "/".join((*_FOLDERS, session_id, "lock"))
        if not getattr(js.navigator, "locks", None):
            raise CrossContextLockUnavailableError(
                f"This browser has no Web Locks, so two tabs could write {path} at once. Use a "
                "browser that has them, or leave resumable out."
            )
        async with WebLocks().try_hold(_LOCK_PREFIX + path) as is_held:
            yield is_held

    async def sessions(self) -> list[str]:
        """Return the ids of all sessions that have a folder."""
        async with _answered():
            folder = await self._folder()
            return [] if folder is None else await keys_of(folder)

    async def read(self, session_id: str, name: str) -> bytes | None:
        """Return a whole file."""
        async with _answered():
            folder = await self._folder(session_id)
            if folder is None:
                return None
            try:
                file = await (await folder.getFileHandle(name)).getFile()
            except JsException as error:
                if error.name == "NotFoundError":
                    return None
                raise
            data: bytes = (await file.arrayBuffer()).to_bytes()
            return data

    async def write(self, session_id: str, name: str, data: bytes) -> None:
        """Write a whole file."""
        file = await self.open_journal(session_id, name, 0)
        try:
            await file.append(data)
        finally:
            await file.close()

    async def open_journal(self, session_id: str, name: str, size: int) -> JournalFile:
        """Open a file for appending: by a sync access handle, where there are such."""
        async with _answered():
            folder = await self._folder(session_id, create=True)
            handle = await folder.getFileHandle(name, create=True)
            if not hasattr(js, "FileSystemSyncAccessHandle"):
                return _StreamedFile(handle, size)
            access = await access_handle(handle)
            access.truncate(size)
            return _OpenFile(access, size)

    async def delete(self, session_id: str) -> None:
        """Delete a session's folder."""
        async with _answered():
            folder = await self._folder()
            if folder is not None:
                await remove_entry(folder, session_id)

    async def _folder(self, *session_id: str, create: bool = False) -> Any:
        """Return the folder of a session, or of all; None where there is none."""
        folder = self._root
        for name in (*_FOLDERS, *session_id):
            try:
                folder = await folder.getDirectoryHandle(name, create=create)
            except JsException as error:
                if error.name == "NotFoundError":
                    return None
                raise
        return folder


class _OpenFile:
    """A file with a sync access handle, which can be flushed to the disk.

    Only dedicated workers have such handles.
    """

    def __init__(self, access: Any, size: int) -> None:
        self._access = access
        self._size = size

    async def append(self, data: bytes) -> None:
        with told_as_ours():
            written = self._access.write(array_of(data), at=self._size)
            if written != len(data):
                self._access.truncate(self._size)
                raise _full("not all of a record could be written")
            self._access.flush()
        self._size += len(data)

    async def close(self) -> None:
        self._access.close()


class _StreamedFile:
    """A file that is written anew at each append, whole or not at all."""

    def __init__(self, handle: Any, size: int) -> None:
        self._handle = handle
        self._size = size

    async def append(self, data: bytes) -> None:
        async with _answered():
            stream = await self._handle.createWritable(keepExistingData=True)
            try:
                await stream.truncate(self._size)
                await stream.seek(self._size)
                await stream.write(array_of(data))
            except JsException:
                await stream.abort()
                raise
            await stream.close()
        self._size += len(data)

    async def close(self) -> None:
        """Return; nothing is open between two appends."""


@asynccontextmanager
async def _answered() -> AsyncIterator[None]:
    """Raise our errors for what the browser throws, and where it does not answer.

    Chromium leaves calls unanswered when a site has no room at all.
    """
    try:
        async with asyncio.timeout(_ANSWER_S):
            yield
    except TimeoutError as error:
        raise _full(f"the browser did not answer in {_ANSWER_S} s") from error
    except JsException as error:
        raise storage_error(error) from error


def _full(reason: str) -> StorageFullError:
    return StorageFullError(
        f"There is no more room for resumable sessions ({reason}). Delete some, or a stored model, "
        "or free space on the device."
    )
