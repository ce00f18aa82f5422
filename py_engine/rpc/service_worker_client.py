"""`ServiceWorkerMLCEngine`: the engine's interface on a page, served by a service worker.

Runs on CPython, Pyodide and MicroPython.
"""

import asyncio

from py_engine.errors import RangeError
from py_engine.rpc.client import WebWorkerMLCEngine, reload_or_terminate
from py_engine.rpc.messages import HEARTBEAT
from py_engine.rpc.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from py_engine.config import MLCEngineConfig


DAY_MS = 86_400_000  # what MicroPython can sleep is a few days


class ServiceWorkerMLCEngine(WebWorkerMLCEngine):
    """A client of MLCEngine that runs in a service worker, which all pages of a site share.

    `registration` is what `register_service_worker` returns (or a Transport). Every `keep_alive_ms`
    a heartbeat keeps the browser from ending the worker, and tells when it did so all the same:
    what is pending then is sent again where that is safe, else fails with WorkerRestartedError.
    The next request loads the model again, from storage.
    `missed_heartbeat` is how many heartbeats in a row were not answered.
    """

    def __init__(
        self,
        registration: "Any",
        engine_config: "MLCEngineConfig | Mapping[str, Any] | None" = None,
        keep_alive_ms: float = 10_000,
    ) -> None:
        if not 0 < keep_alive_ms <= DAY_MS:
            raise RangeError(f"keep_alive_ms is {keep_alive_ms}, but must be in (0, {DAY_MS}].")
        self.missed_heartbeat = 0
        self._last_beat = ""  # uuid
        super().__init__(_transport_to(registration), engine_config)
        self._heartbeat = asyncio.create_task(self._send_heartbeats(keep_alive_ms / 1000))

    def terminate(self) -> None:
        """End this client; everything pending fails with WorkerFailedError.

        Its requests and streams end. The worker and its models stay for others.
        """
        self.model_id = self.chat_opts = None
        self._heartbeat.cancel()
        if not self._channel.is_closed:
            self._channel.give_up()
        self._channel.close("This client of the service worker was ended by `engine.terminate()`.")

    async def _send_heartbeats(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self._channel.is_closed:
                return
            self.missed_heartbeat += 1
            pending = self._channel.pending
            self._last_beat = self._channel.send("keepAlive", {"pending": pending})

    def _on_event(self, message: "dict[str, Any]") -> None:
        if message.get("kind") != HEARTBEAT:
            super()._on_event(message)
            return
        self.missed_heartbeat = 0
        # Many wait for a worker that starts. An older one tells as lost what was sent again since.
        if message.get("lost") and message.get("uuid") == self._last_beat:
            self._channel.restarted(message["lost"])


async def create_service_worker_mlc_engine(
    model_id: "str | Sequence[str]",
    engine_config: "MLCEngineConfig | Mapping[str, Any] | None" = None,
    chat_opts: "Mapping[str, Any] | Sequence[Mapping[str, Any]] | None" = None,
    keep_alive_ms: float = 10_000,
    registration: "Any" = None,
) -> ServiceWorkerMLCEngine:
    """Return a ServiceWorkerMLCEngine that has loaded `model_id`, or found it loaded.

    `registration` defaults to that of the page's own service worker.
    Errors: NoServiceWorkerAPIError; ServiceWorkerInitializationError where none is registered.
    """
    if registration is None:
        from py_engine.rpc.transport_service_worker import page_registration

        registration = await page_registration()
    engine = ServiceWorkerMLCEngine(registration, engine_config, keep_alive_ms)
    await reload_or_terminate(engine, model_id, chat_opts)
    return engine


def _transport_to(registration: "Any") -> Transport:
    if isinstance(registration, Transport):
        return registration
    from py_engine.rpc.transport_service_worker import ServiceWorkerTransport

    return ServiceWorkerTransport(registration)
