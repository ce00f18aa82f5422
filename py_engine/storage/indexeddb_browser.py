"""Blobs in IndexedDB, one row each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy, to_js

from py_engine.errors import StorageError
from py_engine.storage.bytes_browser import array_of
from py_engine.storage.errors_browser import storage_error, told_as_ours
from py_engine.storage.source import HostBytes
from py_engine.storage.tasks import run_to_end

_DATABASE, _VERSION, _TABLE = "pywebllm", 1, "blobs"


class IndexedDbBlobs:
    """Implements `blobs.BlobStore`; the key of a row is its folder and name."""

    backend = "indexeddb"

    def __init__(self, database: Any) -> None:
        self._database = database

    @staticmethod
    async def open() -> IndexedDbBlobs:
        """Return the site's store. Raises StorageError where there is none."""
        try:
            request = js.indexedDB.open(_DATABASE, _VERSION)
        except (AttributeError, JsException) as error:
            raise StorageError(f"This browser has no IndexedDB ({error}).") from error

        def create(event: Any) -> None:
            event.target.result.createObjectStore(_TABLE)

        with _Listeners(request, upgradeneeded=create):
            return IndexedDbBlobs(await _result(request))

    async def put(self, folder: str, name: str, data: HostBytes) -> HostBytes:
        """Keep a new blob."""
        blob = js.Blob.new(to_js([array_of(data)]))
        await run_to_end(self._change("put", blob, to_js([folder, name])))
        return data

    async def get(
        self, folder: str, name: str, begin: int = 0, end: int | None = None
    ) -> HostBytes | None:
        """Return a range of a blob."""
        blob = await _result(self._table("readonly").get(to_js([folder, name])))
        if blob is None:
            return None
        try:
            return await blob.slice(begin, blob.size if end is None else end).arrayBuffer()
        except JsException as error:
            if error.name in ("NotFoundError", "NotReadableError"):
                return None
            raise storage_error(error) from error

    async def folders(self) -> list[str]:
        """Return the folders that have blobs."""
        keys = await _result(self._table("readonly").getAllKeys())
        return sorted({folder for folder, _ in keys.to_py()})

    async def names(self, folder: str) -> list[str]:
        """Return the names of a folder's blobs."""
        keys = await _result(self._table("readonly").getAllKeys(_all_of(folder)))
        return [name for _, name in keys.to_py()]

    async def delete(self, folder: str, names: Sequence[str] | None = None) -> None:
        """Delete blobs, or all of a folder."""
        keys = [_all_of(folder)] if names is None else [to_js([folder, name]) for name in names]
        for key in keys:
            await self._change("delete", key)

    async def _change(self, method: str, *arguments: Any) -> None:
        """Change the table and wait until that is on the disk."""
        with told_as_ours():
            transaction = self._database.transaction(_TABLE, "readwrite", durability="strict")
            getattr(transaction.objectStore(_TABLE), method)(*arguments)
        await _settled(transaction, "complete", ("abort", "error"))

    def _table(self, mode: str) -> Any:
        with told_as_ours():  # the browser ends a database that the user clears
            return self._database.transaction(_TABLE, mode).objectStore(_TABLE)


class _Listeners:
    """Event listeners of a target, for the time of a `with` block."""

    def __init__(self, target: Any, **listeners: Callable[[Any], None]) -> None:
        self._target = target
        self._proxies = {name: create_proxy(listener) for name, listener in listeners.items()}

    def __enter__(self) -> None:
        for name, proxy in self._proxies.items():
            self._target.addEventListener(name, proxy)

    def __exit__(self, *_: object) -> None:
        for name, proxy in self._proxies.items():
            self._target.removeEventListener(name, proxy)
            proxy.destroy()


async def _result(request: Any) -> Any:
    await _settled(request, "success", ("error",))
    return request.result


async def _settled(target: Any, success: str, failures: tuple[str, ...]) -> None:
    """Wait for one of an object's events. Raises StorageError's classes."""
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def settle(is_good: bool) -> Callable[[Any], None]:
        return lambda event: None if future.done() else future.set_result(is_good)

    listeners = {success: settle(True), **{name: settle(False) for name in failures}}
    with _Listeners(target, **listeners):
        if await future:
            return
    error = target.error
    raise storage_error(error) if error else StorageError("IndexedDB was interrupted. Try again.")


def _all_of(folder: str) -> Any:
    return js.IDBKeyRange.bound(to_js([folder]), to_js([folder, []]))
