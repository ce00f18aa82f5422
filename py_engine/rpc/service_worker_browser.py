"""The service worker that the engine runs in, as ServiceWorkerMLCEngineHandler needs it."""

from __future__ import annotations

import asyncio
from typing import Any

import js

from py_engine.rpc.contents import Message
from py_engine.rpc.transport_browser import to_js_message

# Chromium ends a worker that takes five minutes over one event, such as a long download; after this
# time the page's heartbeats are what keeps it alive.
_LONGEST_EVENT_S = 240


class BrowserScope:
    """Implements `service_worker_handler.WorkerScope`."""

    @staticmethod
    def is_here() -> bool:
        """Tell whether this is a service worker."""
        return hasattr(js, "ServiceWorkerGlobalScope")

    def post(self, page: Any, message: Message) -> None:
        """Send a message to a page; to one that is closed nothing happens."""
        page.postMessage(to_js_message(message))

    def wait_until(self, event: Any, task: asyncio.Task[None]) -> None:
        """Keep the worker alive until `task` has ended, or for the longest that is allowed."""
        settled = js.Promise.withResolvers()
        event.waitUntil(settled.promise)
        timer = asyncio.get_running_loop().call_later(_LONGEST_EVENT_S, settled.resolve)

        def done(_task: asyncio.Task[None]) -> None:
            timer.cancel()
            settled.resolve()

        task.add_done_callback(done)

    async def has_page(self, page_id: str) -> bool:
        """Tell whether a page is still open: not closed, and not gone to another address."""
        return bool(await js.clients.get(page_id))
