"""The page's end of a service worker, and its registration. Runs on Pyodide and MicroPython."""

import asyncio

import js

from py_engine.errors import (
    ConfigValueError,
    NoServiceWorkerAPIError,
    ServiceWorkerInitializationError,
)
from py_engine.rpc.transport import Transport
from py_engine.rpc.transport_browser import (
    from_js_message,
    site_url,
    to_js_message,
    worker_address,
)
from py_engine.storage.persist_browser import ask_to_persist

try:
    from pyodide.ffi import JsException, create_proxy
except ImportError:  # MicroPython
    from jsffi import JsException, create_proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


async def register_service_worker(url: "str | None" = None, script: "str | None" = None) -> "Any":
    """Register the engine's service worker and return its `ServiceWorkerRegistration` when active.

    `url`, by default that of the site's, and `script`, a Python file for the worker, are as for
    `create_worker`. The worker then is the one of all pages below its own address, and of any other
    page of the site that gives the registration to `create_service_worker_mlc_engine`.
    Errors: NoServiceWorkerAPIError; ServiceWorkerInitializationError.
    """
    container = _container()
    address = worker_address(url or site_url("service_worker.mjs"), script)
    try:
        registration = await container.register(address, js.JSON.parse('{"type": "module"}'))
    except JsException as error:
        raise ServiceWorkerInitializationError(
            f"The service worker could not be registered: {error.args[-1]} Its script must be on "
            "this page's site, with JavaScript's media type; the browser's console tells more."
        ) from None
    return await _when_active(registration)


async def page_registration() -> "Any":
    """Return the registration of the service worker that is this page's, when it is active.

    Errors: NoServiceWorkerAPIError; ServiceWorkerInitializationError where there is none.
    """
    registration = await _container().getRegistration()
    if not registration:
        raise ServiceWorkerInitializationError(
            f"No service worker is registered for {js.location.href}: call "
            "`await register_service_worker()` first."
        )
    return await _when_active(registration)


class ServiceWorkerTransport(Transport):
    """The page's end of the service worker of a JavaScript `ServiceWorkerRegistration`.

    A worker that the browser has ended is started by the next message to it. When another version
    of the worker takes its place, `on_restart` is called.
    """

    def __init__(self, registration: "Any") -> None:
        if not hasattr(registration, "active"):
            raise ConfigValueError(
                f"registration is {registration!r}, but must be a ServiceWorkerRegistration, as "
                "from `await register_service_worker()`, or a Transport."
            )
        self._container = _container()
        self._registration = registration
        self._worker: Any = None
        self._listened: list[Any] = []  # (target, name of the event, listener)
        self._has_asked_to_persist = False

    def connect(
        self,
        on_message: "Callable[[dict[str, Any]], None]",
        on_failure: "Callable[[str, bool], None]",
        on_restart: "Callable[[], None] | None" = None,
    ) -> None:
        """Start to listen; see Transport."""
        self._on_failure = on_failure
        self._on_restart = on_restart

        def message(event: "Any") -> None:
            if event.source == self._worker:
                data = from_js_message(event.data)
                if data is not None:
                    on_message(data)

        def message_error(_event: "Any") -> None:
            on_failure("The service worker sent what the browser could not read.", False)

        self._listen(self._container, "message", message)
        self._listen(self._container, "messageerror", message_error)
        self._container.startMessages()

    def post(self, message: "dict[str, Any]") -> None:
        """Send one message to the worker, which starts if it does not run."""
        if message.get("kind") == "reload" and not self._has_asked_to_persist:
            self._has_asked_to_persist = True
            ask_to_persist()
        if self._worker is None:
            self._worker = self._usable_worker()
            if self._worker is None:
                self._on_failure(_UNREGISTERED, True)
                return
            self._listen(self._worker, "statechange", self._on_state_change)
        self._worker.postMessage(to_js_message(message))

    def new_uuid(self) -> str:
        """Return a random UUID."""
        return str(js.crypto.randomUUID())

    def close(self) -> None:
        """Stop listening; the worker goes on, as other pages may use it."""
        for target, name, listener in self._listened:
            target.removeEventListener(name, listener)
        self._listened.clear()

    def _listen(self, target: "Any", name: str, listener: "Callable[[Any], None]") -> None:
        proxy = create_proxy(listener)
        target.addEventListener(name, proxy)
        self._listened.append((target, name, proxy))

    def _on_state_change(self, event: "Any") -> None:
        if event.target.state != "redundant":
            return
        self._worker = None
        if self._usable_worker() is None:
            self._on_failure(_UNREGISTERED, True)
        elif self._on_restart:
            self._on_restart()

    def _usable_worker(self) -> "Any":
        """Return the active worker, or the one that is about to become it."""
        for name in ("active", "waiting", "installing"):
            worker = getattr(self._registration, name)
            if worker and worker.state != "redundant":
                return worker
        return None


_UNREGISTERED = (
    "The service worker is not registered any more. Call `await register_service_worker()` and "
    "make a new engine."
)


def _container() -> "Any":
    container = getattr(js.navigator, "serviceWorker", None)
    if container:
        return container
    reason = "this browser has none, as in some private windows."
    if not js.isSecureContext:
        reason = f"{js.location.origin} is no secure context: use https, or http://localhost."
    raise NoServiceWorkerAPIError(f"There is no navigator.serviceWorker: {reason}")


async def _when_active(registration: "Any") -> "Any":
    """Wait until a new registration's worker has been activated, and return the registration."""
    worker = registration.installing or registration.waiting
    if registration.active or not worker:
        return registration
    settled: Any = asyncio.Future()

    def changed(_event: "Any" = None) -> None:
        if worker.state in ("activated", "redundant") and not settled.done():
            settled.set_result(worker.state)

    listener = create_proxy(changed)
    worker.addEventListener("statechange", listener)
    changed()
    try:
        if await settled == "redundant":
            raise ServiceWorkerInitializationError(
                f"The service worker {worker.scriptURL} could not be installed; the browser's "
                "console tells why."
            )
    finally:
        worker.removeEventListener("statechange", listener)
    return registration
