"""Which models a worker's engine has loaded, and for whom: several clients may share it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from py_engine.config import AppConfig, InitProgressReport
from py_engine.model_set import ChatOpts, load_arguments
from py_engine.rpc.messages import progress
from py_engine.rpc.served_client import ServedClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadState:
    """The arguments of a load, as a client sends them; without an `app_config` the engine's own."""

    model_id: list[str]
    chat_opts: list[ChatOpts | None] | None = None
    app_config: dict[str, Any] | None = None

    @staticmethod
    def of(content: dict[str, Any]) -> LoadState | None:
        """Return what a message's content expects to be loaded; None where it says nothing.

        Errors: those of `load_arguments`.
        """
        model_id, chat_opts = content.get("modelId"), content.get("chatOpts")
        if model_id is None:
            return None
        model_ids, options = load_arguments(model_id, chat_opts or None)
        return LoadState(model_ids, options if any(options) else None, content.get("appConfig"))

    def serves(self, expected: LoadState) -> bool:
        """Tell whether a client that expects `expected` finds it in this."""
        return (
            self.model_id == expected.model_id
            and self.chat_opts == expected.chat_opts
            and self.app_config == expected.app_config
        )


class Loads:
    """Loads and unloads for the clients of one engine, and keeps in mind what is there.

    `loaded` is None where nothing is. `clients` returns those whose streams end with a load.
    """

    def __init__(self, engine: Any, clients: Callable[[], Iterable[ServedClient]]) -> None:
        self.loaded: LoadState | None = None
        self._engine = engine
        self._clients = clients
        self._own_config = getattr(engine, "app_config", None)
        self._app_config: dict[str, Any] | None = None  # a client's that the engine has now
        self._calls = 0  # counts loads and unloads, so that only the latest sets the state
        self._under_way: tuple[LoadState, asyncio.Event] | None = None
        self._told_of_progress: set[ServedClient] = set()
        self._matching = asyncio.Lock()
        engine.set_init_progress_callback(self._report_progress)

    def set_app_config(self, client: ServedClient, app_config: dict[str, Any]) -> None:
        """Take a client's configuration for what it loads from now on.

        Raises ConfigurationError's classes, and so does every load with a wrong one.
        """
        client.app_config = app_config
        self._use(app_config)

    async def load(self, client: ServedClient, wanted: LoadState) -> None:
        """Load anew, whatever is there; `client` is told how it goes."""
        this_call = await self._forget()
        self._told_of_progress = {client}
        wanted = _of_client(wanted, client)
        self._use(wanted.app_config)
        under_way = self._under_way = wanted, asyncio.Event()
        try:
            await self._engine.reload(wanted.model_id, wanted.chat_opts)
            if this_call == self._calls:
                self.loaded = wanted
        finally:
            under_way[1].set()
            if self._under_way is under_way:
                self._under_way = None

    async def load_unless_there(self, client: ServedClient, wanted: LoadState) -> None:
        """`load`, but what is there is only reported; waits for another client's load of it."""
        expected = _of_client(wanted, client)
        await self._wait_for_same_load(client, expected)
        if self.loaded is None or not self.loaded.serves(expected):
            await self.load(client, wanted)
            return
        vendor = await self._engine.get_gpu_vendor()
        client.post(progress(InitProgressReport(1.0, 0.0, f"Finish loading on WebGPU - {vendor}")))

    async def match(self, client: ServedClient, expected: LoadState) -> None:
        """Load what a client's request expects, if this is something else.

        A service worker that the browser ended starts again empty, while its clients go on.
        """
        async with self._matching:
            wanted = _of_client(expected, client)
            await self._wait_for_same_load(client, wanted)
            if self.loaded is not None and self.loaded.serves(wanted):
                return
            logger.warning(
                "a client expects %s to be loaded, but here it is %s: reloading",
                wanted.model_id,
                self.loaded and self.loaded.model_id,
            )
            await self.load(client, wanted)

    async def unload(self) -> None:
        """Free all models, and end a load under way."""
        await self._forget()
        await self._engine.unload()

    async def _wait_for_same_load(self, client: ServedClient, expected: LoadState) -> None:
        while self._under_way is not None and self._under_way[0].serves(expected):
            self._told_of_progress.add(client)
            await self._under_way[1].wait()

    async def _forget(self) -> int:
        """Note that nothing is loaded and end the open streams; returns the count of calls."""
        self._calls += 1
        this_call = self._calls
        self.loaded = None
        for client in list(self._clients()):
            await client.streams.fail_all("the model was unloaded during this stream.")
        return this_call

    def _use(self, app_config: dict[str, Any] | None) -> None:
        """Give the engine a client's configuration, or its own one back."""
        if app_config == self._app_config:
            return
        self._engine.set_app_config(
            self._own_config if app_config is None else AppConfig.from_dict(app_config)
        )
        self._app_config = app_config

    def _report_progress(self, report: InitProgressReport) -> None:
        for client in list(self._told_of_progress):
            client.post(progress(report))


def _of_client(state: LoadState, client: ServedClient) -> LoadState:
    return state if state.app_config else replace(state, app_config=client.app_config)
