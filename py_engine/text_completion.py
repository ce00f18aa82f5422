"""Text completions on a loaded model: prompts as they are, without a chat template."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from py_engine.api.completion import CompletionRequest
from py_engine.api.responses import CompletionResponseMaker, ReplyEvent
from py_engine.api.sampling import check_token_ids
from py_engine.generation import Generation, Seat
from py_engine.loaded_model import LoadedModel
from py_engine.replies import Replies
from py_engine.response_job import ResponseJob


class CompletionJob(ResponseJob):
    """One checked completion request: each of its prompts gets `n` choices."""

    def __init__(self, model_id: str, request: CompletionRequest, replies: Replies) -> None:
        """Raise RangeError for a token id that the model does not have, ConfigValueError for an
        empty prompt, ContextWindowSizeExceededError for one that is too long.
        """
        maker = CompletionResponseMaker(
            model_id,
            include_usage=request.include_usage,
            has_logprobs=request.top_logprobs is not None,
        )
        super().__init__(replies, maker, len(request.prompts) * request.n)
        self._request = request
        self._prompts = [self._token_ids(i) for i in range(len(request.prompts))]
        for prompt in self._prompts:
            replies.generation(prompt, 0)  # raises for a prompt that does not fit

    def _prompt_ids(self, index: int) -> Sequence[int]:
        return self._prompts[index // self._request.n]

    async def _choice(
        self, index: int, seat: Seat, *, stream: bool
    ) -> AsyncGenerator[ReplyEvent, None]:
        generation = self._generation(index)
        if self._request.echo:
            yield ReplyEvent(index, {"text": self._prompt_text(index)})
        is_first = index % self._request.n == 0
        replies = self._replies.run(generation, seat, is_first_of_prompt=is_first)
        async with aclosing(replies) as pieces:
            async for piece in pieces:
                yield ReplyEvent(index, {"text": piece.text}, piece.logprobs)
        if generation.finish_reason == "stop":
            await self._require_valid(generation.text)
        yield ReplyEvent(index, finish_reason=generation.finish_reason)

    def _generation(self, index: int) -> Generation:
        return self._replies.generation(self._prompt_ids(index), index)

    def _prompt_text(self, index: int) -> str:
        prompt = self._request.prompts[index // self._request.n]
        if isinstance(prompt, str):
            return prompt
        return self._model.tokenizer.decode(prompt, skip_special_tokens=False)

    def _token_ids(self, index: int) -> Sequence[int]:
        prompt = self._request.prompts[index]
        if isinstance(prompt, str):
            return self._model.tokenizer.encode(prompt)
        where = (
            "request: prompt" if len(self._request.prompts) == 1 else f"request: prompt[{index}]"
        )
        check_token_ids(prompt, self._model.vocab_size, where)
        return prompt


async def completion_job(
    model: LoadedModel, model_id: str, request: CompletionRequest, began: float
) -> CompletionJob:
    """Return the job of a checked request, its grammar compiled.

    Errors: those of CompletionJob and of `GrammarCompiler.compile`.
    """
    replies = Replies(model, request, began)
    await replies.prepare(request.grammar)
    return CompletionJob(model_id, request, replies)
