"""`SharedFiles` with `navigator.crossOriginStorage`, in the two forms that its drafts had.

Source: https://wicg.github.io/cross-origin-storage/
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import js
from pyodide.ffi import JsException, to_js

from py_engine.storage.bytes_browser import array_of
from py_engine.storage.errors_browser import storage_error
from py_engine.storage.source import HostBytes


class CrossOriginFiles:
    """Implements `shared_files.SharedFiles`. The browser compares what is written with its hash."""

    def __init__(self) -> None:
        self._storage = js.navigator.crossOriginStorage
        self._last: tuple[str, Any] = ("", None)

    @staticmethod
    def is_offered() -> bool:
        """Whether this browser, or an extension in it, has the interface."""
        return bool(getattr(js.navigator, "crossOriginStorage", None))

    async def has(self, sha256: str) -> bool:
        """Whether the file is there."""
        return await self._file(sha256) is not None

    async def read(self, sha256: str, begin: int, end: int) -> HostBytes | None:
        """Return a range of a file."""
        file = await self._file(sha256)
        try:
            return None if file is None else await file.slice(begin, end).arrayBuffer()
        except JsException:  # removed by the browser or the user
            self._last = ("", None)
            return None

    async def put(self, sha256: str, parts: AsyncIterator[HostBytes]) -> None:
        """Keep a file."""
        try:
            stream = await (await self._handle(sha256, create=True)).createWritable()
            async for part in parts:
                await stream.write(array_of(part))
            await stream.close()
        except JsException as error:
            raise storage_error(error) from error

    async def _file(self, sha256: str) -> Any:
        if self._last[0] != sha256:
            try:
                self._last = (sha256, await (await self._handle(sha256)).getFile())
            except JsException:  # not there, or this site may not know
                return None
        return self._last[1]

    async def _handle(self, sha256: str, *, create: bool = False) -> Any:
        name = to_js({"algorithm": "SHA-256", "value": sha256})
        options = to_js({"create": create})
        if hasattr(self._storage, "requestFileHandle"):
            return await self._storage.requestFileHandle(name, options)
        (handle,) = await self._storage.requestFileHandles(to_js([name]), options)
        return handle
