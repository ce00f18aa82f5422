"""Ports between the parts of a Chrome extension. Runs on Pyodide and MicroPython."""

import js

from py_engine.errors import ConfigValueError, WorkerFailedError
from py_engine.rpc.transport_browser import from_js_message, to_js_message

try:
    from pyodide.ffi import create_proxy
except ImportError:  # MicroPython
    from jsffi import create_proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The name of the engine's ports; WebLLM's, whose background worker may check it.
PORT_NAME = "web_llm_service_worker"


class Port:
    """Implements `extension_handler.Port` over a JavaScript `chrome.runtime.Port`."""

    def __init__(self, port: "Any", read: "Callable[[Any], Any] | None" = None) -> None:
        self._port = port
        self._read = read
        self._listeners: list[Any] = []  # of (event, function)

    def listen(
        self,
        on_message: "Callable[[Any], None]",
        on_disconnect: "Callable[[str], None]",
    ) -> None:
        """Call `on_message(data)` for each message, a JavaScript object or what `read` makes of it.

        When the other end is gone, call `on_disconnect(reason)`; browsers give a reason only where
        there never was another end.
        """

        def message(data: "Any", *_port: "Any") -> None:
            on_message(data if self._read is None else self._read(data))

        def disconnect(*_port: "Any") -> None:
            reason = _last_error()  # to be read at once
            self._forget()
            on_disconnect(reason)

        for event, function in (
            (self._port.onMessage, create_proxy(message)),
            (self._port.onDisconnect, create_proxy(disconnect)),
        ):
            event.addListener(function)
            self._listeners.append((event, function))

    def post(self, message: "dict[str, Any]") -> None:
        """Send a message; when the other end is gone nothing happens."""
        if self._port is not None:
            self._port.postMessage(to_js_message(message))

    def close(self) -> None:
        """Disconnect, and call nobody back."""
        if self._port is not None:
            port = self._port
            self._forget()
            port.disconnect()

    def _forget(self) -> None:
        """Let go of what Python and JavaScript hold of each other, which no collector can."""
        for event, function in self._listeners:
            event.removeListener(function)
        self._listeners.clear()
        self._port = None


class BackgroundPorts:
    """Connects to the background worker of an extension.

    `extension_id` names another extension than the page's own; that one's manifest must allow it
    (`externally_connectable`). Errors: ConfigValueError when it is no extension's id.
    """

    def __init__(self, extension_id: "str | None" = None) -> None:
        # MicroPython cannot catch what `connect` throws at a wrong one.
        if extension_id is not None and not _is_extension_id(extension_id):
            raise ConfigValueError(
                f"extension_id is {extension_id!r}, but must be the 32 letters from a to p that "
                "chrome://extensions shows; leave it out within the extension itself."
            )
        self._extension_id = extension_id

    def connect(self) -> Port:
        """Open a port, which starts the background worker where it does not run.

        Errors: WorkerFailedError where no extension can be reached at all.
        """
        runtime = _runtime()
        if not hasattr(runtime, "connect"):
            raise WorkerFailedError(
                "This page cannot reach an extension (it has no chrome.runtime.connect). In a page "
                "of a site use a web worker, or name an extension that allows this site."
            )
        info = js.JSON.parse('{"name": "' + PORT_NAME + '"}')
        if self._extension_id is not None:
            return Port(runtime.connect(self._extension_id, info), from_js_message)
        if not hasattr(runtime, "id"):
            raise WorkerFailedError(
                "The extension was removed, updated or reloaded; open this page again."
            )
        return Port(runtime.connect(info), from_js_message)

    def new_uuid(self) -> str:
        """Return a random UUID."""
        return str(js.crypto.randomUUID())


def _is_extension_id(text: str) -> bool:
    return len(text) == 32 and all("a" <= letter <= "p" for letter in text)


def _last_error() -> str:
    """Return why the browser has just closed a port; reading it also keeps it off the console."""
    error = getattr(_runtime(), "lastError", None)
    return str(error.message) if error else ""


def _runtime() -> "Any":
    return getattr(getattr(js, "chrome", None), "runtime", None)
