"""Locks between all tabs and workers of a site, with the Web Locks API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy, to_js

from py_engine.storage.errors_browser import storage_error


class WebLocks:
    """Implements `locks.Locks`. The browser frees a lock when its holder goes away."""

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Wait for the lock and hold it. Raises StorageError where the browser has no locks."""
        controller = js.AbortController.new()
        async with _requested(name, controller, signal=controller.signal):
            yield

    @asynccontextmanager
    async def try_hold(self, name: str) -> AsyncIterator[bool]:
        """Hold the lock if it is free."""
        async with _requested(name, None, ifAvailable=True) as is_held:
            yield is_held


@asynccontextmanager
async def _requested(name: str, controller: Any, **options: Any) -> AsyncIterator[bool]:
    granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    released = asyncio.Event()

    async def on_grant(lock: Any) -> None:
        if not granted.done():
            granted.set_result(bool(lock))
            await released.wait()

    callback = create_proxy(on_grant)
    request = js.navigator.locks.request(name, to_js(options), callback)
    ended = asyncio.ensure_future(_end(request, granted))
    ended.add_done_callback(lambda _: callback.destroy())
    try:
        yield await granted
    finally:
        released.set()
        if controller is not None:
            controller.abort()  # of no effect once the lock was granted
        await asyncio.shield(ended)


async def _end(request: Any, granted: asyncio.Future[bool]) -> None:
    """Wait until the lock is free again; tell whoever waits for it that the browser refuses."""
    try:
        await request
    except JsException as error:
        if not granted.done():
            granted.set_exception(storage_error(error))
