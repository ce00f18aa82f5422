"""A proxy and a handler back to back in one event loop; messages cross as JSON, as in a browser.

Attachments cross as they are.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from py_engine.rpc.client import WebWorkerMLCEngine
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.rpc.transport import Transport
from tests.support.event_loop import call_soon
from tests.support.scripted_engine import ScriptedEngine

MODEL = "some-model"


class JsonTransport(Transport):
    """Carries JSON text to `deliver`; `sent` and `received` keep all messages."""

    def __init__(self, deliver: Callable[[dict[str, Any]], None]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.is_closed = False
        self._deliver = deliver
        self._ids = itertools.count(1)

    def connect(self, on_message: Any, on_failure: Any, on_restart: Any = None) -> None:
        self._on_message = on_message
        self.fail = on_failure

    def post(self, message: dict[str, Any]) -> None:
        if not self.is_closed:
            self.sent.append(message)
            self._soon(self._deliver, message)

    def reply(self, message: dict[str, Any]) -> None:
        self.received.append(message)
        self._soon(lambda heard: None if self.is_closed else self._on_message(heard), message)

    def new_uuid(self) -> str:
        return f"id-{next(self._ids)}"

    def close(self) -> None:
        self.is_closed = True

    def _soon(self, function: Any, message: dict[str, Any]) -> None:
        attachments = {key: message[key] for key in message if key == "attachments"}
        plain = {key: message[key] for key in message if key != "attachments"}
        text = json.dumps(plain, allow_nan=False)
        call_soon(function, json.loads(text) | attachments)


class PickedFile:
    """What a JavaScript File has, as far as the page looks at it."""

    def __init__(self, name: str = "x.gguf", text: str = "GGUF") -> None:
        self.name = name
        self.size = len(text)
        self._text = text

    def slice(self) -> None:
        """Tell that this is a File."""

    async def text(self) -> str:
        return self._text


class WorkerPair:
    """`client` talks to `handler`, which serves `engine`, over `transport`."""

    def __init__(
        self,
        engine: Any = None,
        engine_config: Any = None,
        handler_class: type[WebWorkerMLCEngineHandler] = WebWorkerMLCEngineHandler,
    ) -> None:
        self._handler_class = handler_class
        self._serve(engine or ScriptedEngine())
        self.transport = JsonTransport(lambda message: self.handler.on_message(message))
        self.client = WebWorkerMLCEngine(self.transport, engine_config)

    def restart(self) -> None:
        """Let a new worker take the place of this one, which never says anything again."""
        self._serve(ScriptedEngine())

    async def heartbeat(self, pending: list[str]) -> dict[str, Any]:
        """Return the worker's answer to a "keepAlive" about these requests."""
        content = {"pending": pending}
        self.handler.on_message({"kind": "keepAlive", "uuid": "beat", "content": content})
        return self.transport.received[-1]

    def _serve(self, engine: ScriptedEngine) -> None:
        def reply(message: dict[str, Any]) -> None:
            if self.engine is engine:
                self.transport.reply(message)

        self.engine = engine
        self.handler = self._handler_class(engine, reply)

    async def loaded(self) -> WebWorkerMLCEngine:
        """Load MODEL and return the client."""
        await self.client.reload(MODEL)
        return self.client


def ask(text: str, **fields: Any) -> dict[str, Any]:
    """Return a chat request with one message."""
    return {"messages": [{"role": "user", "content": text}], **fields}


async def text_of(stream: Any) -> str:
    """Read a stream to its end."""
    parts = []
    async for chunk in stream:
        parts += [choice.delta.content or "" for choice in chunk.choices]
    return "".join(parts)


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    """Return the kinds of messages."""
    return [message["kind"] for message in messages]
