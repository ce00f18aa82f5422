"""`ServiceWorkerMLCEngineHandler`: one engine for all pages of a site, in a service worker."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from py_engine.errors import NonWorkerEnvironmentError
from py_engine.rpc.contents import Message
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.rpc.served_client import ServedClient

# How often a page that has something under way is looked for: browsers do not tell of its end.
_LOOK_S = 1.0


class WorkerScope(Protocol):
    """What the handler needs of a service worker; service_worker_browser.py has the real one."""

    def post(self, page: Any, message: Message) -> None:
        """Send a message to a page, the `source` of an event."""

    def wait_until(self, event: Any, task: asyncio.Task[None]) -> None:
        """Ask the browser to let the worker live until `task` has ended."""

    async def has_page(self, page_id: str) -> bool:
        """Tell whether a page is still open."""


class ServiceWorkerMLCEngineHandler(WebWorkerMLCEngineHandler):
    """Serves one engine to all pages that send messages to this service worker.

    Each answer goes to the page that asked. What is loaded already is not loaded again, so a model
    outlives its page. Of a page that was closed the requests and streams end.
    Errors: NonWorkerEnvironmentError outside a service worker.
    """

    keeps_loaded_models = True

    def __init__(self, engine: Any = None, scope: WorkerScope | None = None) -> None:
        self._scope = _own_scope() if scope is None else scope
        self._pages: dict[str, ServedClient] = {}
        self._look: asyncio.Task[None] | None = None
        super().__init__(engine)

    def post_message(self, message: Message) -> None:
        """Send a message to every page."""
        for page in list(self._pages.values()):
            page.post(message)

    def on_message(
        self, event: Any, client: ServedClient | None = None
    ) -> asyncio.Task[None] | None:
        """Take one message; the worker is kept alive until it is answered."""
        page_id = getattr(event.source, "id", None)
        if page_id is None:
            return None  # nobody could be answered: the page is gone, or it is no page
        task = super().on_message(event, client or self._page(page_id, event.source))
        if task is not None:
            self._scope.wait_until(event, task)
            if self._look is None or self._look.done():
                self._look = asyncio.ensure_future(self._look_for_closed_pages())
        return task

    def _page(self, page_id: str, source: Any) -> ServedClient:
        if page_id not in self._pages:
            self._pages[page_id] = ServedClient(lambda message: self._scope.post(source, message))
        return self._pages[page_id]

    async def _look_for_closed_pages(self) -> None:
        """Free what closed pages hold, for as long as any page has something under way."""
        while any(page.tasks or len(page.streams) for page in self._pages.values()):
            await asyncio.sleep(_LOOK_S)
            for page_id in list(self._pages):
                if not await self._scope.has_page(page_id):
                    await self._pages.pop(page_id).close()


def _own_scope() -> WorkerScope:
    try:
        from py_engine.rpc.service_worker_browser import BrowserScope
    except ImportError:
        raise NonWorkerEnvironmentError(_OUTSIDE) from None
    if not BrowserScope.is_here():
        raise NonWorkerEnvironmentError(_OUTSIDE)
    return BrowserScope()


_OUTSIDE = (
    "ServiceWorkerMLCEngineHandler runs in a service worker only, as worker/service_worker.mjs "
    "starts it. In a page use `create_service_worker_mlc_engine(model_id)`."
)
