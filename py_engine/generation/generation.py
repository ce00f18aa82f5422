"""One reply: prefill in chunks, then token after token until something ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal

from py_engine.errors import ConfigValueError, ContextWindowSizeExceededError
from py_engine.generation.run_ahead import RunAhead
from py_engine.generation.statistics import Statistics
from py_engine.generation.stop import StopStrings
from py_engine.models.base import SamplingParams, TextModel
from py_engine.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "abort"]

# Steps in flight: the one being read and one that the GPU computes meanwhile.
RUN_AHEAD_DEPTH = 2

# Longest stretch without giving other tasks and messages a turn. A GPU that is faster than Python
# has every step ready when it is awaited, and such awaits let no message through.
MAX_TURN_S = 0.01

# A step that was awaited this long was a real wait, in which everything else had its turn.
REAL_WAIT_S = 0.002


@dataclass(frozen=True)
class GenerationParams:
    """What to generate. `max_tokens` None means up to the end of the context window."""

    sampling: SamplingParams
    max_tokens: int | None = None
    stop_token_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()


class Generation:
    """One reply in the making.

    `finish_reason` is None until the reply has ended; `text` is the reply so far.
    """

    def __init__(
        self,
        model: TextModel,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        params: GenerationParams,
    ) -> None:
        _check_prompt(prompt, model.context_window_size)
        self._model = model
        self._prompt = prompt
        self._params = params
        room = model.context_window_size - len(prompt) + 1
        self._limit = room if params.max_tokens is None else min(room, params.max_tokens)
        self._detokenizer = tokenizer.detokenizer()
        self._stop = StopStrings(params.stop_strings)
        self._pieces: list[str] = []
        self._interrupted = False
        self._failure: Exception | None = None
        self._last_time = self._turn_began = 0.0
        self.finish_reason: FinishReason | None = None
        self.statistics = Statistics()

    @property
    def text(self) -> str:
        """The reply so far."""
        return "".join(self._pieces)

    def interrupt(self) -> None:
        """End the reply after the token or prefill chunk at hand, with "abort"."""
        self._interrupted = True

    def fail(self, error: Exception) -> None:
        """Make the reply raise `error` instead of its next token: the model is gone."""
        self._failure = error

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Generate the reply; yields its text as it becomes certain, never an empty string.

        Closing the iterator, or cancelling whoever waits for it, ends the reply; the model is
        free when that has returned. Raises DeviceLostError and what was given to `fail`.
        """
        self._last_time = self._turn_began = time.perf_counter()
        self._model.start(self._params.sampling)
        if not await self._prefill():
            self.finish_reason = "abort"
            return
        tokens = RunAhead(self._model, self._limit, RUN_AHEAD_DEPTH)
        try:
            while self.finish_reason is None:
                if self._interrupted:
                    piece = self._finish("abort")
                else:
                    piece = self._take(await self._next(tokens))
                if piece:
                    self._pieces.append(piece)
                    yield piece
                await self._let_others_run()
                self._raise_failure()
        finally:
            await tokens.drain()

    async def _prefill(self) -> bool:
        """Append the prompt to the model's sequence; False when interrupted before its end."""
        size = self._model.prefill_chunk_size
        for start in range(0, len(self._prompt), size):
            chunk = self._prompt[start : start + size]
            await self._model.prefill(chunk)
            self.statistics.prompt_tokens += len(chunk)
            await asyncio.sleep(0)
            self._raise_failure()
            if self._interrupted:
                return False
        return True

    async def _next(self, tokens: RunAhead) -> int:
        asked = time.perf_counter()
        token_id = await tokens.next()
        now = time.perf_counter()
        if now - asked > REAL_WAIT_S:
            self._turn_began = now
        self._count_token(now)
        return token_id

    def _take(self, token_id: int) -> str:
        """Return the text that a token makes certain."""
        if token_id in self._params.stop_token_ids:
            return self._finish("stop")
        piece = self._stop.put(self._detokenizer.put(token_id))
        if self._stop.found:
            self.finish_reason = "stop"
        elif self.statistics.completion_tokens >= self._limit:
            piece += self._finish("length")
        return piece

    def _finish(self, reason: FinishReason) -> str:
        """End the reply and return the text that was held back."""
        self.finish_reason = reason
        piece = self._stop.put(self._detokenizer.finish())
        return piece + self._stop.finish()

    def _count_token(self, now: float) -> None:
        statistics = self.statistics
        if statistics.completion_tokens == 0:
            statistics.prefill_s = now - self._last_time
        else:
            statistics.decode_steps += 1
            statistics.decode_s += now - self._last_time
        statistics.completion_tokens += 1
        self._last_time = now

    async def _let_others_run(self) -> None:
        if self._last_time - self._turn_began > MAX_TURN_S:
            await asyncio.sleep(0)
            self._turn_began = time.perf_counter()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _check_prompt(prompt: Sequence[int], context_window_size: int) -> None:
    if not prompt:
        raise ConfigValueError("The prompt has no tokens; give at least one message with text.")
    if len(prompt) > context_window_size:
        raise ContextWindowSizeExceededError(
            f"The prompt has {len(prompt)} tokens, but context_window_size is "
            f"{context_window_size}. Shorten the messages, leave out old ones, or load the model "
            "with a larger context_window_size in chat_opts."
        )
