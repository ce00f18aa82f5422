"""Blobs in the Cache API, and the files that WebLLM keeps there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any
from urllib.parse import quote, unquote

import js
from pyodide.ffi import JsException, to_js

from py_engine.errors import StorageError
from py_engine.storage.bytes_browser import array_of
from py_engine.storage.errors_browser import storage_error, told_as_ours
from py_engine.storage.http_browser import header
from py_engine.storage.identity import Identity
from py_engine.storage.other_store import OtherFile
from py_engine.storage.source import HostBytes
from py_engine.storage.tasks import run_to_end

_CACHE = "pywebllm"
_ADDRESS = "https://pywebllm.invalid/"
_WEBLLM_CACHES = ("webllm/model", "webllm/config", "webllm/wasm")


class CacheBlobs:
    """Implements `blobs.BlobStore`: a blob is the response to a made-up address."""

    backend = "cache"

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._last: tuple[str, Any] = ("", None)

    @staticmethod
    async def open() -> CacheBlobs:
        """Return the site's store. Raises StorageError where there is none."""
        try:
            return CacheBlobs(await js.caches.open(_CACHE))
        except JsException as error:
            raise storage_error(error) from error
        except AttributeError as error:
            raise StorageError("This page has no Cache API: it needs https.") from error

    async def put(self, folder: str, name: str, data: HostBytes) -> HostBytes:
        """Keep a new blob."""
        response = js.Response.new(array_of(data))
        with told_as_ours():
            await run_to_end(self._cache.put(_address(folder, name), response))
        return data

    async def get(
        self, folder: str, name: str, begin: int = 0, end: int | None = None
    ) -> HostBytes | None:
        """Return a range of a blob; the last blob is kept open for ranges that follow."""
        address = _address(folder, name)
        with told_as_ours():
            if self._last[0] != address:
                response = await self._cache.match(address)
                if response is None:
                    return None
                self._last = (address, await response.blob())
            blob = self._last[1]
            return await blob.slice(begin, blob.size if end is None else end).arrayBuffer()

    async def folders(self) -> list[str]:
        """Return the folders that have blobs."""
        return sorted({folder for folder, _ in await self._entries()})

    async def names(self, folder: str) -> list[str]:
        """Return the names of a folder's blobs."""
        return [name for _, name in await self._entries(folder)]

    async def delete(self, folder: str, names: Sequence[str] | None = None) -> None:
        """Delete blobs, or all of a folder."""
        self._last = ("", None)
        for name in await self.names(folder) if names is None else names:
            with told_as_ours():
                await self._cache.delete(_address(folder, name))

    async def _entries(self, folder: str | None = None) -> list[tuple[str, str]]:
        asked = () if folder is None else (_address(folder, ""), to_js({"ignoreSearch": True}))
        with told_as_ours():
            keys = await self._cache.keys(*asked)
        addresses = [str(request.url).removeprefix(_ADDRESS) for request in keys]
        return [
            (folder, unquote(name)) for folder, _, name in (a.partition("?") for a in addresses)
        ]


class WebLlmCaches:
    """Implements `other_store.OtherStore` over the caches that WebLLM fills."""

    async def has(self, url: str) -> bool:
        """Whether there is a file."""
        return await _webllm_response(url) is not None

    async def get(self, url: str) -> OtherFile | None:
        """Return a file."""
        response = await _webllm_response(url)
        if response is None:
            return None
        etag = (header(response, "etag") or "").removeprefix("W/")
        modified = header(response, "last-modified") or ""
        data = await response.arrayBuffer()
        return OtherFile(data, Identity(int(data.byteLength), etag=etag, modified=modified))

    async def paths(self, folder_url: str) -> list[str]:
        """Return the paths of all files under an address."""
        entries = [entry async for entry in _webllm_entries(folder_url)]
        return [str(request.url).removeprefix(folder_url) for _, request in entries]

    async def delete(self, folder_url: str, paths: Collection[str] | None = None) -> int:
        """Delete files under an address; return how many bytes they had."""
        freed = 0
        async for cache, request in _webllm_entries(folder_url):
            if paths is None or str(request.url).removeprefix(folder_url) in paths:
                freed += int((await (await cache.match(request)).blob()).size)
                await cache.delete(request)
        return freed


async def _webllm_entries(folder_url: str) -> AsyncIterator[tuple[Any, Any]]:
    """Yield each request of a file under an address with its cache."""
    try:
        for name in _WEBLLM_CACHES:
            if await js.caches.has(name):
                cache = await js.caches.open(name)
                for request in await cache.keys():
                    if str(request.url).startswith(folder_url):
                        yield cache, request
    except JsException:  # not for this page, as in private windows: there is nothing to find
        return


async def _webllm_response(url: str) -> Any:
    for name in _WEBLLM_CACHES:
        try:
            response = await js.caches.match(url, cacheName=name)
        except JsException:
            return None
        if response is not None:
            return response
    return None


def _address(folder: str, name: str) -> str:
    return f"{_ADDRESS}{folder}?{quote(name)}"
