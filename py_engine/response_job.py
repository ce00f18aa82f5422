"""A request under way: its choices, one after another, as one response or as chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from py_engine.api.objects import ApiObject
from py_engine.api.responses import ReplyEvent, ResponseMaker
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
        """Yield the response's chunks; the model is free again before the last ones."""
        async with aclosing(self._events(stream=True)) as events:
            async for event in events:
                for chunk in self._maker.chunks(event):
                    yield chunk
        if self._replies.fields.include_usage:
            yield self._maker.usage_chunk(self._usage())

    async def _events(self, *, stream: bool) -> AsyncGenerator[ReplyEvent, None]:
        """Yield what the choices consist of; the last one's end when the model is free."""
        end: ReplyEvent | None = None
        async with self._model.turn():
            for index in range(self._n_choices):
                if end is not None:
                    yield end
                async with aclosing(self._choice(index, stream=stream)) as events:
                    async for event in events:
                        if event.finish_reason is None:
                            yield event
                        else:
                            end = event
                if end is not None and end.finish_reason == "abort":
                    break
        if end is not None:
            yield end

    @abstractmethod
    def _choice(self, index: int, *, stream: bool) -> AsyncGenerator[ReplyEvent, None]:
        """Generate choice `index`; yields its deltas, then its end.

        Errors: ResponseFormatViolationError, and those of `LoadedModel.run`.
        """

    def _usage(self) -> dict[str, Any]:
        return self._replies.usage()

    async def _require_valid(self, text: str) -> None:
        """Raise ResponseFormatViolationError where a complete reply breaks the request's schema."""
        schema = self._replies.fields.schema_to_validate
        if schema is not None:
            await self._model.grammars.require_valid(schema, text)
