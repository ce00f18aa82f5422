"""Chat completions on a loaded model: at once, or as a stream of chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.responses import ChatResponseMaker, ReplyEvent
from py_engine.chat_images import load_images
from py_engine.chat_prompt import ChatPrompt, chat_prompt
from py_engine.generation import Generation, Seat
from py_engine.loaded_model import LoadedModel
from py_engine.output import MessageParser
from py_engine.replies import Replies
from py_engine.response_job import ResponseJob
from py_engine.resumable.replies import recorded_replies


class ChatJob(ResponseJob):
    """One checked chat request with its prompt, for one model."""

    def __init__(
        self, model_id: str, request: ChatCompletionRequest, prompt: ChatPrompt, replies: Replies
    ) -> None:
        """Raise ContextWindowSizeExceededError when the prompt is too long."""
        maker = ChatResponseMaker(
            model_id,
            include_usage=request.include_usage,
            has_logprobs=request.top_logprobs is not None,
        )
        super().__init__(replies, maker, request.n)
        self._prompt = prompt
        self._first = self._generation(0)
        self._reasoning_tokens = 0

    def _prompt_ids(self, index: int) -> Sequence[int]:
        return self._prompt.token_ids

    async def _choice(
        self, index: int, seat: Seat, *, stream: bool
    ) -> AsyncGenerator[ReplyEvent, None]:
        generation = self._first if index == 0 else self._generation(index)
        parser, content = self._prompt.parser(stream=stream), []
        async with aclosing(self._deltas(index, generation, seat, parser)) as events:
            async for event in events:
                content.append(event.delta.get("content") or "")
                yield event
        reason = str(generation.finish_reason)
        if reason == "stop" and parser.has_tool_calls:
            reason = "tool_calls"
        elif reason == "stop":
            await self._require_valid("".join(content))
        yield ReplyEvent(index, finish_reason=reason)

    async def _deltas(
        self, index: int, generation: Generation, seat: Seat, parser: MessageParser
    ) -> AsyncGenerator[ReplyEvent, None]:
        reasoned = 0
        for delta in parser.put(self._prompt.forced_prefix):
            yield ReplyEvent(index, delta)
        replies = self._replies.run(generation, seat, is_first_of_prompt=index == 0)
        async with aclosing(replies) as pieces:
            async for piece in pieces:
                logprobs = piece.logprobs
                for delta in parser.put(piece.text):
                    yield ReplyEvent(index, delta, logprobs)
                    logprobs = ()
                if logprobs:
                    yield ReplyEvent(index, {}, logprobs)
                if parser.is_reasoning:
                    reasoned = generation.statistics.completion_tokens
                if parser.is_complete:
                    generation.interrupt("stop")
        for delta in parser.finish():
            yield ReplyEvent(index, delta)
        self._reasoning_tokens += reasoned

    def _generation(self, index: int) -> Generation:
        prompt = self._prompt
        return self._replies.generation(
            prompt.token_ids,
            index,
            kept_special_ids=prompt.kept_special_ids,
            grammar_after=prompt.grammar_after,
        )

    def _usage(self) -> dict[str, Any]:
        known = self._model.renderer.knows_reasoning
        return self._replies.usage(self._reasoning_tokens if known else None)


async def chat_job(
    model: LoadedModel, model_id: str, request: ChatCompletionRequest, began: float
) -> ChatJob:
    """Return the job of a checked request: its prompt rendered, its grammar compiled.

    Errors: ChatTemplateError, UnsupportedRoleError, UnsupportedToolsError,
    ContextWindowSizeExceededError, and those of `load_images`, `recorded_replies` and
    `GrammarCompiler.compile`.
    """
    prompt = chat_prompt(model, request, await load_images(model, request.messages))
    replies = await recorded_replies(model, model_id, request, prompt, began)
    await replies.prepare(prompt.grammar)
    return ChatJob(model_id, request, prompt, replies)
