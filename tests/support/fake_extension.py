"""A Chrome extension without Chrome: ports that carry JSON, and a worker that can be killed."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from py_engine.errors import WorkerFailedError
from py_engine.rpc.extension_handler import ExtensionServiceWorkerMLCEngineHandler
from tests.support.event_loop import call_soon
from tests.support.scripted_engine import ScriptedEngine


class FakePort:
    """One end of a connection; what is posted comes out of `other` in a later turn of the loop."""

    def __init__(self) -> None:
        self.other: FakePort | None = None
        self.received: list[dict[str, Any]] = []
        self._listeners: Any = None

    def listen(self, on_message: Any, on_disconnect: Any) -> None:
        self._listeners = on_message, on_disconnect

    def post(self, message: dict[str, Any]) -> None:
        if self.other is not None:
            text = json.dumps(message, allow_nan=False)
            call_soon(self.other._deliver, text)

    def close(self) -> None:
        """Disconnect; the other end hears of it."""
        other, self.other = self.other, None
        if other is not None:
            other.disconnect()

    def disconnect(self, reason: str = "") -> None:
        """Be told that the other end is gone."""
        self.other = None
        if self._listeners is not None:
            self._listeners[1](reason)

    def _deliver(self, text: str) -> None:
        if self.other is not None and self._listeners is not None:
            self.received.append(json.loads(text))
            self._listeners[0](json.loads(text))


class FakeExtension:
    """Implements what BackgroundPorts does: each connection starts the worker if it does not run.

    `workers` are all handlers so far; `ports` the pages' ends of all connections. Where it
    `loses_connections`, no worker hears of them, nor a page that they are lost.
    """

    def __init__(self, seconds_per_word: float = 0.0) -> None:
        self.workers: list[ExtensionServiceWorkerMLCEngineHandler] = []
        self.ports: list[FakePort] = []
        self.is_removed = False
        self.has_listener = True
        self.loses_connections = False
        self._is_running = False
        self._seconds_per_word = seconds_per_word
        self._ids = itertools.count(1)

    @property
    def worker(self) -> ExtensionServiceWorkerMLCEngineHandler:
        """The worker that runs now."""
        return self.workers[-1]

    def connect(self) -> FakePort:
        if self.is_removed:
            raise WorkerFailedError("The extension was removed.")
        page_end, worker_end = FakePort(), FakePort()
        page_end.other, worker_end.other = worker_end, page_end
        self.ports.append(page_end)
        if self.loses_connections:
            return page_end
        if not self.has_listener:
            reason = "Could not establish connection."
            asyncio.get_running_loop().call_soon(page_end.disconnect, reason)
            return page_end
        if not self._is_running:
            engine = ScriptedEngine(self._seconds_per_word)
            self.workers.append(ExtensionServiceWorkerMLCEngineHandler(engine=engine))
            self._is_running = True
        self.worker.set_port(worker_end)
        return page_end

    def new_uuid(self) -> str:
        return f"id-{next(self._ids)}"

    def kill(self) -> None:
        """End the worker as the browser does: it says nothing more, and its ports break."""
        self._is_running = False
        for port in list(self.ports):
            if port.other is not None:
                port.other.other = None
                port.disconnect()
