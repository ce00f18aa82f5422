"""A request under way: its choices, several at once, as one response or as chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from py_engine.api.objects import ApiObject
from py_engine.api.responses import ReplyEvent, ResponseMaker
from py_engine.generation import Seat
from py_engine.merged import merged
from py_engine.replies import Replies


class ResponseJob(ABC):
    """One checked request, for one model; a subclass says what a choice of it consists of."""

    def __init__(self, replies: Replies, maker: ResponseMaker, n_choices: int) -> None:
        self._replies = replies
        self._model = replies.model
        self._maker = maker
        self._n_choices = n_choices

    async def complete(self) -> ApiObject:
        """Return the response with all choices; an interruption leaves out those to come."""
        async with aclosing(self._events(stream=False)) as events:
            async for event in events:
                self._maker.add(event)
        return self._maker.response(self._usage())

    async def chunks(self) -> AsyncGenerator[ApiObject, None]:
        """Yield the response's chunks; a choice leaves the model before its last one."""
        async with aclosing(self._events(stream=True)) as events:
            async for event in events:
                for chunk in self._maker.chunks(event):
                    yield chunk
        if self._replies.fields.include_usage:
            yield self._maker.usage_chunk(self._usage())

    def _events(self, *, stream: bool) -> AsyncGenerator[ReplyEvent, None]:
        """Yield what the choices consist of, as many at once as the model generates."""
        left = deque(range(self._n_choices))
        n_lanes = min(self._n_choices, self._model.most_replies)
        if n_lanes == 1:
            return self._lane(left, stream=stream)
        return merged([self._lane(left, stream=stream) for _ in range(n_lanes)])

    async def _lane(self, left: deque[int], *, stream: bool) -> AsyncGenerator[ReplyEvent, None]:
        """Generate one of the choices that are `left` after another, none after an interruption.

        The last event of a choice comes when its seat is free.
        """
        while left:
            end: ReplyEvent | None = None
            async with self._model.seat(self._prompt_ids(left[0])) as seat:
                if not left:  # the others were faster, or interrupted
                    return
                choice = self._choice(left.popleft(), seat, stream=stream)
                async with aclosing(choice) as events:
                    async for event in events:
                        if event.finish_reason is None:
                            yield event
                        else:
                            end = event
            if end is not None:
                if end.finish_reason == "abort":
                    left.clear()
                yield end

    @abstractmethod
    def _prompt_ids(self, index: int) -> Sequence[int]:
        """Return the prompt of choice `index`."""

    @abstractmethod
    def _choice(self, index: int, seat: Seat, *, stream: bool) -> AsyncGenerator[ReplyEvent, None]:
        """Generate choice `index` in `seat`; yields its deltas, then its end.

        Errors: ResponseFormatViolationError, and those of `LoadedModel.run`.
        """

    def _usage(self) -> dict[str, Any]:
        return self._replies.usage()

    async def _require_valid(self, text: str) -> None:
        """Raise ResponseFormatViolationError where a complete reply breaks the request's schema."""
        schema = self._replies.fields.schema_to_validate
        if schema is not None:
            await self._model.grammars.require_valid(schema, text)
