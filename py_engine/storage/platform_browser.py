"""The browser's storage, network and locks, put together."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable

import js
from pyodide.ffi import JsException

from py_engine.errors import StorageError
from py_engine.storage.blobs import BlobStore
from py_engine.storage.cache_browser import CacheBlobs, WebLlmCaches
from py_engine.storage.cross_origin_browser import CrossOriginFiles
from py_engine.storage.download import Downloader
from py_engine.storage.fetcher import Fetcher, RetryPolicy
from py_engine.storage.indexeddb_browser import IndexedDbBlobs
from py_engine.storage.locks import LocalLocks, Locks
from py_engine.storage.locks_browser import WebLocks
from py_engine.storage.model_storage import ModelStorage
from py_engine.storage.opfs_browser import OpfsBlobs
from py_engine.storage.persist_browser import ask_to_persist
from py_engine.storage.store import FileStore
from py_engine.storage.transport_browser import FetchTransport
from py_engine.storage.unstored import NoStorage

logger = logging.getLogger(__name__)

_OPENERS: dict[str, Callable[[], Awaitable[BlobStore]]] = {
    "opfs": OpfsBlobs.open,
    "indexeddb": IndexedDbBlobs.open,
    "cache": CacheBlobs.open,
}

_CROSS_ORIGIN = "cross-origin"


async def open_storage(
    backend: str = "opfs", *, policy: RetryPolicy | None = None
) -> ModelStorage | NoStorage:
    """Return the site's store of models in `backend`, in another one where that does not work.

    Where none does, models are loaded without being kept. Both are logged as warnings. With
    "cross-origin" only downloads under way and what the browser refuses to share lie in OPFS. On a
    page the browser is asked to keep what is stored.
    """
    ask_to_persist()
    fetcher = Fetcher(FetchTransport(), policy)
    shared = None
    if backend == _CROSS_ORIGIN and CrossOriginFiles.is_offered():
        shared = CrossOriginFiles()
    elif backend == _CROSS_ORIGIN:
        logger.warning("This browser has no cross-origin storage: models are stored in 'opfs'.")
    for name in dict.fromkeys((backend, *_OPENERS) if backend in _OPENERS else _OPENERS):
        try:
            blobs = await _OPENERS[name]()
            await _try_out(blobs)
        except StorageError as error:
            logger.warning("models cannot be stored in %r: %s", name, error)
            continue
        locks: Locks = WebLocks() if hasattr(js.navigator, "locks") else LocalLocks()
        files = FileStore(blobs, shared)
        other = WebLlmCaches() if hasattr(js, "caches") else None
        downloader = Downloader(files, fetcher, locks, other=other)
        return ModelStorage(files, downloader, locks, BrowserRoom(), other)
    logger.warning(
        "This browser stores nothing for this page (a private window?): models are downloaded anew "
        "each time."
    )
    return NoStorage(fetcher)


class BrowserRoom:
    """Implements `model_storage.Room`."""

    async def free_bytes(self) -> int | None:
        """Return what the browser's quota leaves."""
        try:
            estimate = await js.navigator.storage.estimate()
        except (AttributeError, JsException):
            return None
        return int(estimate.quota - estimate.usage)


async def _try_out(blobs: BlobStore) -> None:
    """Raise StorageError unless what is stored comes back."""
    folder = f"try{os.urandom(8).hex()}"
    await blobs.put(folder, "blob", b"pywebllm")
    found = await blobs.get(folder, "blob")
    await blobs.delete(folder)
    if found is None or found.to_bytes() != b"pywebllm":
        raise StorageError("The browser does not give back what it stored.")
