"""The one place where worker messages become JavaScript objects and back.

Runs on Pyodide and MicroPython, which differ in how they see JavaScript values; JSON strings are
the same in both, and cheap next to a token. Arguments are checked before JavaScript is called,
because MicroPython cannot catch what it throws.
"""

import json

import js

from py_engine.errors import ConfigValueError, MessageFormatError
from py_engine.json_values import MAX_DEPTH, is_too_deep
from py_engine.rpc.transport import Transport
from py_engine.storage.persist_browser import ask_to_persist

try:
    from pyodide.ffi import JsException, create_proxy
except ImportError:  # MicroPython
    from jsffi import JsException, create_proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


WEB_WORKER = "worker/web_worker.mjs"
# A request, which has its own bound, within a message.
MAX_MESSAGE_DEPTH = MAX_DEPTH + 10


def to_js_message(message: "dict[str, Any]") -> "Any":
    """Return a message as a JavaScript object, its attachments as they are."""
    plain = {key: value for key, value in message.items() if key != "attachments"}
    js_message = js.JSON.parse(json.dumps(plain))
    if "attachments" in message:
        js_message.attachments = js.Array.new()
        for path, item in message["attachments"]:
            js_message.attachments.push(js.Array.of(path, item))
    return js_message


def from_js_message(data: "Any") -> "dict[str, Any] | None":
    """Return the `data` of a message event as a dict; None when it is no object.

    Of its `attachments` only the paths become Python's.
    Errors: MessageFormatError, with the message's `uuid`, when JSON cannot carry it.
    """
    try:
        text = js.JSON.stringify(data)
    except JsException as error:
        raise _refusal(data, f"a message is not plain JSON data: {error}") from None
    if not isinstance(text, str):
        return None
    if is_too_deep(text, MAX_MESSAGE_DEPTH):
        raise _refusal(data, f"a message is nested deeper than {MAX_MESSAGE_DEPTH} levels.")
    message = json.loads(text)
    if not isinstance(message, dict):
        return None
    if "attachments" in message:
        message["attachments"] = [(str(pair[0]), pair[1]) for pair in data.attachments]
    return message


def _refusal(data: "Any", text: str) -> MessageFormatError:
    refusal = MessageFormatError(text)
    refusal.uuid = str(getattr(data, "uuid", ""))
    return refusal


def post_to_client(message: "dict[str, Any]") -> None:
    """Post a message from inside a dedicated worker to the page that owns it."""
    js.postMessage(to_js_message(message))


class WorkerTransport(Transport):
    """The page's end of a dedicated worker, given as a JavaScript `Worker`."""

    def __init__(self, worker: "Any") -> None:
        if not hasattr(worker, "postMessage") or not hasattr(worker, "addEventListener"):
            raise ConfigValueError(
                f"worker is {worker!r}, but must be a JavaScript Worker, "
                "as from `create_worker(url)`, or a Transport."
            )
        self._worker = worker
        self._listeners: dict[str, Any] = {}
        self._has_answered = False
        self._has_asked_to_persist = False

    def connect(
        self,
        on_message: "Callable[[dict[str, Any]], None]",
        on_failure: "Callable[[str, bool], None]",
        on_restart: "Callable[[], None] | None" = None,
    ) -> None:
        """Start to listen; see Transport."""

        def message(event: "Any") -> None:
            self._has_answered = True
            data = from_js_message(event.data)
            if data is not None:
                on_message(data)

        def message_error(_event: "Any") -> None:
            on_failure("The worker sent a message that the browser could not read.", False)

        def error(event: "Any") -> None:
            on_failure(_failure_reason(event), not self._has_answered)

        for name, listener in (
            ("message", message),
            ("messageerror", message_error),
            ("error", error),
        ):
            self._listeners[name] = create_proxy(listener)
            self._worker.addEventListener(name, self._listeners[name])

    def post(self, message: "dict[str, Any]") -> None:
        """Send one message to the worker."""
        if message.get("kind") == "reload" and not self._has_asked_to_persist:
            self._has_asked_to_persist = True
            ask_to_persist()
        self._worker.postMessage(to_js_message(message))

    def new_uuid(self) -> str:
        """Return a random UUID; MicroPython has no source of randomness of its own."""
        return str(js.crypto.randomUUID())

    def close(self) -> None:
        """Terminate the worker."""
        for name, listener in self._listeners.items():
            self._worker.removeEventListener(name, listener)
        self._listeners.clear()
        self._worker.terminate()


def create_worker(url: "str | None" = None, script: "str | None" = None) -> "Any":
    """Start the module worker at `url`, by default the site's, and return the JavaScript `Worker`.

    `script` is the URL of a Python file, relative to the page, which the worker runs before it
    takes messages: it defines `start(handler)`, as docs/logit-processors.md shows.
    """
    options = js.JSON.parse('{"type": "module"}')
    return js.Worker.new(worker_address(url or site_url(WEB_WORKER), script), options)


def site_url(path: str) -> str:
    """Return the URL of a file of the site: it lies beside what PyScript has py_engine from.

    Without PyScript it is that of a page in the site's root folder.
    """
    try:
        from pyscript import config
    except ImportError:
        config = {}
    for source in config.get("files", ()):
        address = js.URL.new(source, js.location.href)
        if address.pathname.endswith("/py_engine/__init__.py"):
            return str(js.URL.new("../" + path, address.href).href)
    return "./" + path


def worker_address(url: str, script: "str | None") -> str:
    """Return the address of a worker's JavaScript `url` that runs the Python file `script`."""
    address = js.URL.new(url, js.location.href)
    if script is not None:
        address.searchParams.set("script", js.URL.new(script, js.location.href).href)
    return str(address.href)


def _failure_reason(event: "Any") -> str:
    text = getattr(event, "message", None)
    if not isinstance(text, str) or not text:
        return (
            "The worker could not be loaded: its script is missing, blocked or not valid. "
            "The browser's console names the file."
        )
    return f"The worker failed: {text} ({event.filename}:{event.lineno})"
