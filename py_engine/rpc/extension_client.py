"""`ExtensionServiceWorkerMLCEngine`: the engine's interface in a Chrome extension's pages.

Runs on CPython, Pyodide and MicroPython.
"""

import asyncio
import logging

from py_engine.errors import ConfigValueError, WorkerFailedError
from py_engine.rpc.client import WebWorkerMLCEngine, reload_or_terminate
from py_engine.rpc.messages import HEARTBEAT
from py_engine.rpc.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from py_engine.config import MLCEngineConfig


# How long a port may say nothing to a request and its heartbeats before another takes its place.
MAX_SILENCE_S = 60.0


class ExtensionServiceWorkerMLCEngine(WebWorkerMLCEngine):
    """A client of MLCEngine that runs in an extension's background worker.

    `engine_config` is as WebWorkerMLCEngine's; as a dict it may also have `extension_id`, if the
    worker is another extension's, and `on_disconnect`, which is called without arguments when the
    browser has ended the worker. What is pending then is sent again where that is safe, which
    starts the worker anew, else it fails with WorkerRestartedError. The next request connects and
    loads the model again by itself. While there is a connection, a message every `keep_alive_ms`
    keeps the browser from ending an idle worker; a connection over which nothing comes for
    MAX_SILENCE_S, although something was asked, counts as broken.

    Ports carry JSON only: no files, and images as `data:` URLs only. `ports` makes connections, by
    default an extension_browser.BackgroundPorts.
    """

    def __init__(
        self,
        engine_config: "MLCEngineConfig | Mapping[str, Any] | None" = None,
        keep_alive_ms: float = 10_000,
        ports: "Any" = None,
    ) -> None:
        if not keep_alive_ms > 0:
            raise ConfigValueError(f"keep_alive_ms is {keep_alive_ms}, but must be above 0.")
        extension_id = on_disconnect = None
        if isinstance(engine_config, dict):
            engine_config = dict(engine_config)
            extension_id = engine_config.pop("extension_id", None)
            on_disconnect = engine_config.pop("on_disconnect", None)
        if ports is None:
            from py_engine.rpc.extension_browser import BackgroundPorts

            ports = BackgroundPorts(extension_id)
        transport = PortTransport(ports, keep_alive_ms / 1000, on_disconnect)
        super().__init__(transport, engine_config)

    def terminate(self) -> None:
        """Close the connection; everything pending fails with WorkerFailedError.

        The worker and its models stay, for other pages and the next client.
        """
        self.model_id = self.chat_opts = None
        self._channel.close("The connection was closed by `engine.terminate()`; make a new engine.")


async def create_extension_service_worker_mlc_engine(
    model_id: "str | Sequence[str]",
    engine_config: "MLCEngineConfig | Mapping[str, Any] | None" = None,
    chat_opts: "Mapping[str, Any] | Sequence[Mapping[str, Any]] | None" = None,
    keep_alive_ms: float = 10_000,
) -> ExtensionServiceWorkerMLCEngine:
    """Return an ExtensionServiceWorkerMLCEngine that has loaded `model_id`, or found it loaded."""
    engine = ExtensionServiceWorkerMLCEngine(engine_config, keep_alive_ms)
    await reload_or_terminate(engine, model_id, chat_opts)
    return engine


class PortTransport(Transport):
    """A connection to the background worker, made again when it is needed after it broke."""

    def __init__(
        self, ports: "Any", keep_alive_s: float, on_disconnect: "Callable[[], object] | None"
    ) -> None:
        self._ports = ports
        self._keep_alive_s = keep_alive_s
        self._tell_disconnected = on_disconnect
        self._port: Any = None
        self._heartbeat: Any = None
        self._waits = False  # whether anything was asked since the last message came
        self._has_heartbeats = False  # WebLLM's handler answers none

    def connect(
        self,
        on_message: "Callable[[dict[str, Any]], None]",
        on_failure: "Callable[[str, bool], None]",
        on_restart: "Callable[[], None] | None" = None,
    ) -> None:
        """Connect; see Transport. Errors: WorkerFailedError where no extension can be reached."""
        self._on_message = on_message
        self._on_failure = on_failure
        self._on_restart = on_restart
        self._open()

    def post(self, message: "dict[str, Any]") -> None:
        """Send one message, connecting first if need be.

        Errors: ConfigValueError for what JSON cannot carry; WorkerFailedError.
        """
        if message.get("attachments"):
            raise ConfigValueError(
                f"{message['kind']} has files or image objects, but to an extension's background "
                "worker goes JSON only. Give images as data: URLs; local models need a web worker."
            )
        if self._port is None:
            self._open()
        self._port.post(message)
        self._waits = True

    def new_uuid(self) -> str:
        """Return a random UUID."""
        return str(self._ports.new_uuid())

    def close(self) -> None:
        """Disconnect."""
        if self._port is not None:
            self._port.close()
            self._forget()

    def _open(self) -> None:
        port = self._ports.connect()
        has_other_end = [False]

        def message(data: "Any") -> None:
            has_other_end[0] = True
            self._waits = False
            if isinstance(data, dict):
                self._has_heartbeats |= data.get("kind") == HEARTBEAT
                self._on_message(data)

        def disconnect(reason: str) -> None:
            self._forget()
            self._disconnected("" if has_other_end[0] else reason)

        self._port = port
        self._waits = False
        port.listen(message, disconnect)
        self._heartbeat = asyncio.create_task(self._keep_alive(port, has_other_end))

    async def _keep_alive(self, port: "Any", has_other_end: "list[bool]") -> None:
        silent_s = 0.0  # in heartbeats: a computer that was asleep heard nothing either
        while True:
            await asyncio.sleep(self._keep_alive_s)
            silent_s = silent_s + self._keep_alive_s if self._waits else 0.0
            if silent_s > MAX_SILENCE_S and (self._has_heartbeats or not has_other_end[0]):
                self._heartbeat = None  # not to be cancelled: this task is it
                self.close()
                self._disconnected("")
                return
            port.post({"kind": "keepAlive", "uuid": self.new_uuid(), "content": None})
            self._waits |= self._has_heartbeats

    def _disconnected(self, reason: str) -> None:
        """Tell of a worker that was ended, or that never was there, for which a reason stands."""
        if self._tell_disconnected is not None:
            try:
                self._tell_disconnected()
            except Exception as error:  # a mistake in the callback must not keep requests waiting
                logging.error("on_disconnect failed: %r", error)
        if reason:
            self._on_failure(f"The extension's background worker does not answer: {reason}", False)
            return
        try:
            if self._on_restart is not None:
                self._on_restart()
        except WorkerFailedError as error:  # there is nothing to connect to any more
            self._on_failure(str(error), True)

    def _forget(self) -> None:
        self._port = None
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
