"""Requests and replies over a transport: what matches an answer to its question.

Runs on CPython, Pyodide and MicroPython.
"""

import asyncio

from py_engine.errors import UnknownMessageKindError, WorkerFailedError, WorkerRestartedError
from py_engine.json_values import jsonable
from py_engine.rpc.messages import (
    NOT_REPEATABLE,
    RETURN,
    THROW,
    check_content,
    error_from,
    unknown_kind,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from py_engine.rpc.transport import Transport


# How often a request is sent again: it may be what ends each worker.
MAX_REPEATS = 2


class Call:
    """A request that waits for its reply."""

    def __init__(self, message: "dict[str, Any]") -> None:
        self.message = message
        self.reply: Any = asyncio.Future()
        self.repeats_left = 0 if message["kind"] in NOT_REPEATABLE else MAX_REPEATS


class Channel:
    """Sends requests and hands each reply to whoever waits for its uuid.

    `on_event(message)` gets every message that is no reply. Replies to an unknown uuid (a request
    that was given up, or another proxy's) are ignored.
    """

    def __init__(
        self, transport: "Transport", on_event: "Callable[[dict[str, Any]], None]"
    ) -> None:
        self._transport = transport
        self._on_event = on_event
        self.open_streams: set[str] = set()  # streamIds
        self._pending: dict[str, Call] = {}  # by uuid
        self._failure: dict[str, Any] | None = None  # the "throw" message that ended the worker
        transport.connect(self._on_message, self._on_failure, self.restarted)

    @property
    def is_closed(self) -> bool:
        """Whether the worker is gone, so that nothing can be sent any more."""
        return self._failure is not None

    @property
    def pending(self) -> "list[str]":
        """The uuids of the requests that wait for their replies."""
        return list(self._pending)

    def new_uuid(self) -> str:
        """Return an id for a stream."""
        return self._transport.new_uuid()

    def send(self, kind: str, content: "Any" = None, attachments: "list[Any] | None" = None) -> str:
        """Send a request whose reply, if there is one, does not matter; return its uuid."""
        message = self._message(kind, content, attachments)
        self._post(message)
        return str(message["uuid"])

    async def call(
        self, kind: str, content: "Any" = None, attachments: "list[Any] | None" = None
    ) -> "Any":
        """Send a request and return the content of its reply; None when it has none.

        `attachments` are pairs of a path and a JavaScript object that can be cloned.
        Errors: what the worker raised, as the same class of py_engine.errors; WorkerFailedError
        when the worker is gone; WorkerRestartedError.
        """
        call = Call(self._message(kind, content, attachments))
        uuid = call.message["uuid"]
        self._pending[uuid] = call
        try:
            self._post(call.message)
            return await call.reply
        finally:
            self._pending.pop(uuid, None)

    def restarted(self, lost: "list[str] | None" = None) -> None:
        """The browser has replaced the worker: repeat the requests that it `lost`, or fail them.

        None stands for all that are pending. Those that cannot be repeated raise
        WorkerRestartedError.
        """
        for uuid in self.pending if lost is None else lost:
            call = self._pending.get(uuid)
            if call is None or call.reply.done():
                continue
            if call.repeats_left:
                call.repeats_left -= 1
                self._post(call.message)
            else:
                call.reply.set_exception(
                    WorkerRestartedError(
                        f"The browser ended the engine's worker during {call.message['kind']}, "
                        "which cannot be repeated as it was. Send the request again."
                    )
                )

    def give_up(self) -> None:
        """Let a worker that goes on for others free what works for this channel."""
        contents = [call.message["content"] for call in self._pending.values()]
        streams = {content.get("streamId") for content in contents if isinstance(content, dict)}
        for stream_id in streams | self.open_streams:
            if stream_id is not None:
                self.send("completionStreamReturn", {"streamId": stream_id})
        self.open_streams.clear()

    def close(self, reason: str) -> None:
        """End the worker; whatever is pending fails with WorkerFailedError(reason)."""
        if self._failure is None:
            self._transport.close()
            self._on_failure(reason, True)

    def _message(
        self, kind: str, content: "Any", attachments: "list[Any] | None"
    ) -> "dict[str, Any]":
        content = jsonable(content, kind)
        check_content(kind, content)
        message = {"kind": kind, "uuid": self._transport.new_uuid(), "content": content}
        if attachments is not None:
            message["attachments"] = attachments
        return message

    def _post(self, message: "dict[str, Any]") -> None:
        if self._failure is not None:
            raise error_from(self._failure)
        self._transport.post(message)

    def _on_message(self, message: "dict[str, Any]") -> None:
        kind = message.get("kind")
        if kind == THROW and message.get("uuid") == "":  # the worker could not start
            self._fail(message, is_dead=True)
        elif kind == RETURN or kind == THROW:
            call = self._pending.pop(str(message.get("uuid")), None)
            if call is None or call.reply.done():
                return
            if kind == RETURN:
                call.reply.set_result(message.get("content"))
            else:
                call.reply.set_exception(error_from(message))
        else:
            self._on_event(message)

    def _on_failure(self, reason: str, is_dead: bool) -> None:
        kind = unknown_kind(reason)
        if kind:
            self._refuse(kind)
            return
        self._fail({"error": {"name": WorkerFailedError.__name__, "message": reason}}, is_dead)

    def _refuse(self, kind: str) -> None:
        for call in self._pending.values():
            if call.message["kind"] == kind and not call.reply.done():
                call.reply.set_exception(
                    UnknownMessageKindError(
                        f"the worker runs WebLLM's handler, which does not know {kind}; use "
                        "PyWebLLM's worker for it."
                    )
                )

    def _fail(self, message: "dict[str, Any]", is_dead: bool) -> None:
        if is_dead and self._failure is None:
            self._failure = message
        pending = list(self._pending.values())
        self._pending.clear()
        for call in pending:
            if not call.reply.done():
                call.reply.set_exception(error_from(message))
