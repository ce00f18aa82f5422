"""`ExtensionServiceWorkerMLCEngineHandler`: one engine for all pages of a Chrome extension."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, Protocol

from py_engine.rpc.contents import Message
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.rpc.served_client import ServedClient


class Port(Protocol):
    """One end of a connection; extension_browser.py has the real one."""

    def listen(
        self, on_message: Callable[[Any], None], on_disconnect: Callable[[str], None]
    ) -> None:
        """Call `on_message(data)` for each message, and `on_disconnect(reason)` at its end."""

    def post(self, message: Message) -> None:
        """Send a message; when the other end is gone nothing happens."""


class ExtensionServiceWorkerMLCEngineHandler(WebWorkerMLCEngineHandler):
    """Serves one engine to any number of ports (`chrome.runtime.Port`).

    Each answer goes to the port that asked. What is loaded already is not loaded again. When a port
    is disconnected, because a popup was closed for example, its requests and streams end.
    """

    keeps_loaded_models = True

    def __init__(self, port: Any = None, engine: Any = None) -> None:
        super().__init__(engine)
        self._ports: list[ServedClient] = []
        self._closing: set[asyncio.Task[None]] = set()
        if port is not None:
            self.set_port(port)

    def set_port(self, port: Any, early: Iterable[Any] = ()) -> None:
        """Serve one more port until its other end is gone; `early` are messages that came before.

        `port` is a JavaScript `chrome.runtime.Port`, as `chrome.runtime.onConnect` gives it.
        """
        port = _wrapped(port)
        client = ServedClient(port.post)

        def receive(data: Any) -> None:
            event = data if isinstance(data, dict) else SimpleNamespace(data=data)
            self.on_message(event, client)

        def disconnected(_reason: str) -> None:
            self._ports.remove(client)
            task = asyncio.ensure_future(client.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        self._ports.append(client)
        port.listen(receive, disconnected)
        for data in early:
            receive(data)

    def post_message(self, message: Message) -> None:
        """Send a message to every port."""
        for client in list(self._ports):
            client.post(message)


def _wrapped(port: Any) -> Port:
    if hasattr(port, "onMessage"):
        from py_engine.rpc.extension_browser import Port as BrowserPort

        return BrowserPort(port)
    ours: Port = port
    return ours
