"""Who a handler serves: a page, a popup or another worker that sends messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from py_engine.errors import AbortError
from py_engine.rpc.contents import Message
from py_engine.rpc.served_stream import ServedStreams


class ServedClient:
    """One sender of messages, with what it has under way; `post(message)` answers it.

    `tasks` are its unanswered messages by uuid, `requests` those that a model works on by streamId;
    `streams` are open. `app_config` is what it set, as it sent it.
    """

    def __init__(self, post: Callable[[Message], None]) -> None:
        self.post = post
        self.app_config: dict[str, Any] | None = None
        self.streams = ServedStreams()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.requests: dict[object, asyncio.Task[Any] | None] = {}
        self._given_up: set[object] = set()

    def begin(self, uuid: str, task: asyncio.Task[None]) -> None:
        """Count a message as unanswered until its task ends."""
        self.tasks[uuid] = task
        task.add_done_callback(lambda done: self._end(uuid, done))

    @contextmanager
    def request(self, stream_id: object) -> Iterator[None]:
        """The block is a request for a model; raises AbortError when the client gives it up."""
        task = self.requests[stream_id] = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if stream_id in self._given_up:
                raise AbortError("The client gave the request up.") from None
            raise
        finally:
            if self.requests.get(stream_id) is task:
                del self.requests[stream_id]
                self._given_up.discard(stream_id)

    def give_up(self, stream_id: object) -> None:
        """End a request that is under way, if there is one."""
        task = self.requests.get(stream_id)
        if task is not None:
            self._given_up.add(stream_id)
            task.cancel()

    def lost(self, pending: list[str] | None) -> list[str] | None:
        """Return which of the client's messages are not here: a worker before this one had them."""
        return None if pending is None else [uuid for uuid in pending if uuid not in self.tasks]

    async def close(self) -> None:
        """The client is gone: give up its requests and streams, so that the models are free."""
        tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.streams.close_all()

    def _end(self, uuid: str, task: asyncio.Task[None]) -> None:
        if self.tasks.get(uuid) is task:
            del self.tasks[uuid]
