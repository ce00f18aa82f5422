"""Chat completions on a loaded model: at once, or as a stream of chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.objects import ApiObject
from py_engine.api.responses import ChatResponseMaker, ReplyEvent
from py_engine.chat_prompt import ChatPrompt, chat_prompt
from py_engine.generation import Generation
from py_engine.loaded_model import LoadedModel
from py_engine.output import MessageParser
from py_engine.replies import Replies


class ChatJob:
    """One checked chat request with its prompt, for one model."""

    def __init__(
        self, model_id: str, request: ChatCompletionRequest, prompt: ChatPrompt, replies: Replies
    ) -> None:
        """Raise ContextWindowSizeExceededError when the prompt is too long."""
        self._request = request
        self._prompt = prompt
        self._replies = replies
        self._model = replies.model
        self._first = self._generation(0)
        self._content = ""  # of the choice at hand
        self._reasoning_tokens = 0
        self._maker = ChatResponseMaker(
            model_id,
            include_usage=request.include_usage,
            has_logprobs=request.top_logprobs is not None,
        )

    async def complete(self) -> ApiObject:
        """Return the response with all choices; an interruption leaves out those to come."""
        async with aclosing(self._events(stream=False)) as events:
            async for event in events:
                self._maker.add(event)
        return self._maker.response(self._usage())

    async def chunks(self) -> AsyncGenerator[ApiObject, None]:
        """Yield the response's chunks; the model is free again before the last ones."""
        maker = self._maker
        async with aclosing(self._events(stream=True)) as events:
            async for event in events:
                for chunk in maker.chunks(event):
                    yield chunk
        if self._request.include_usage:
            yield maker.usage_chunk(self._usage())

    async def _events(self, *, stream: bool) -> AsyncGenerator[ReplyEvent, None]:
        """Yield what the choices consist of, one choice after another."""
        async with self._model.turn():
            for index in range(self._request.n):
                generation = self._first if index == 0 else self._generation(index)
                parser = self._prompt.parser(stream=stream)
                async with aclosing(self._deltas(index, generation, parser)) as events:
                    async for event in events:
                        yield event
                end = await self._end(index, generation, parser)
                if index + 1 < self._request.n and generation.finish_reason != "abort":
                    yield end
                else:
                    break
        yield end

    async def _deltas(
        self, index: int, generation: Generation, parser: MessageParser
    ) -> AsyncGenerator[ReplyEvent, None]:
        self._content = ""
        reasoned = 0
        for delta in parser.put(self._prompt.forced_prefix):
            yield ReplyEvent(index, delta)
        replies = self._replies.run(generation, is_first_of_prompt=index == 0)
        async with aclosing(replies) as pieces:
            async for piece in pieces:
                logprobs = piece.logprobs
                for delta in parser.put(piece.text):
                    self._content += delta.get("content") or ""
                    yield ReplyEvent(index, delta, logprobs)
                    logprobs = ()
                if logprobs:
                    yield ReplyEvent(index, {}, logprobs)
                if parser.is_reasoning:
                    reasoned = generation.statistics.completion_tokens
                if parser.is_complete:
                    generation.interrupt("stop")
        for delta in parser.finish():
            self._content += delta.get("content") or ""
            yield ReplyEvent(index, delta)
        self._reasoning_tokens += reasoned

    async def _end(self, index: int, generation: Generation, parser: MessageParser) -> ReplyEvent:
        """Return the end of a choice. Errors: ResponseFormatViolationError."""
        reason = str(generation.finish_reason)
        if reason == "stop" and parser.has_tool_calls:
            reason = "tool_calls"
        elif reason == "stop" and self._request.schema_to_validate is not None:
            await self._model.grammars.require_valid(
                self._request.schema_to_validate, self._content
            )
        return ReplyEvent(index, finish_reason=reason)

    def _generation(self, index: int) -> Generation:
        prompt = self._prompt
        return self._replies.generation(
            prompt.token_ids,
            index,
            kept_special_ids=prompt.kept_special_ids,
            grammar_after=prompt.grammar_after,
        )

    def _usage(self) -> dict[str, object]:
        known = self._model.renderer.knows_reasoning
        return self._replies.usage(self._reasoning_tokens if known else None)


async def chat_job(
    model: LoadedModel, model_id: str, request: ChatCompletionRequest, began: float
) -> ChatJob:
    """Return the job of a checked request: its prompt rendered, its grammar compiled.

    Errors: ChatTemplateError, UnsupportedRoleError, UnsupportedToolsError,
    ContextWindowSizeExceededError, and those of `GrammarCompiler.compile`.
    """
    replies = Replies(model, request, began)
    prompt = chat_prompt(model, request)
    await replies.prepare(prompt.grammar)
    return ChatJob(model_id, request, prompt, replies)
