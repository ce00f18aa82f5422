"""A service worker's handler and the pages that share it, in one event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from py_engine.rpc.service_worker_client import ServiceWorkerMLCEngine
from py_engine.rpc.service_worker_handler import ServiceWorkerMLCEngineHandler
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import JsonTransport

NO_HEARTBEAT_MS = 86_400_000


class PageEvent(dict[str, Any]):
    """A message with the page that sent it; `source` None is a page that is gone by now."""

    def __init__(self, message: dict[str, Any], source: Page | None) -> None:
        super().__init__(message)
        self.source = source


class Page(JsonTransport):
    """A page by its id, with the transport of one engine."""

    def __init__(self, worker: SharedWorker, page_id: str) -> None:
        super().__init__(lambda message: worker.deliver(PageEvent(message, self)))
        self.id = page_id

    def engine(
        self, engine_config: Any = None, keep_alive_ms: float = NO_HEARTBEAT_MS
    ) -> ServiceWorkerMLCEngine:
        """Return this page's client."""
        return ServiceWorkerMLCEngine(self, engine_config, keep_alive_ms)


class SharedWorker:
    """The worker, and the browser around it: the scope of the handler.

    `waits` are the tasks that the worker was to live for. What comes while it `is_asleep`, as when
    it starts, it gets at `wake_up()`.
    """

    def __init__(self) -> None:
        self.open_pages: set[str] = set()
        self.waits: list[asyncio.Task[None]] = []
        self.is_asleep = False
        self._early: list[PageEvent] = []
        self.life: object = None
        self.restart()

    def restart(self) -> None:
        """Let the browser replace the worker: what it had is gone, and what it says is lost."""
        self.engine = ScriptedEngine()
        self.life = scope = _Scope(self)
        self.handler = ServiceWorkerMLCEngineHandler(self.engine, scope)

    def page(self, page_id: str) -> Page:
        """Open a page."""
        self.open_pages.add(page_id)
        return Page(self, page_id)

    def close(self, page: Page) -> None:
        """Close a page; the browser tells nobody."""
        self.open_pages.remove(page.id)
        page.is_closed = True

    def deliver(self, event: PageEvent) -> None:
        """Give a message to the worker."""
        if self.is_asleep:
            self._early.append(event)
        else:
            self.handler.on_message(event)

    def wake_up(self) -> None:
        """Give the worker what has come meanwhile."""
        self.is_asleep = False
        for event in self._early:
            self.handler.on_message(event)
        self._early.clear()


class _Scope:
    """The WorkerScope of one life of the worker."""

    def __init__(self, worker: SharedWorker) -> None:
        self._worker = worker

    def post(self, page: Page, message: dict[str, Any]) -> None:
        if self._worker.life is self:
            page.reply(message)

    def wait_until(self, event: PageEvent, task: asyncio.Task[None]) -> None:
        self._worker.waits.append(task)

    async def has_page(self, page_id: str) -> bool:
        await asyncio.sleep(0)
        return page_id in self._worker.open_pages
