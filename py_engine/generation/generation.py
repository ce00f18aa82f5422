"""One reply: prefill in chunks, then token after token until something ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from py_engine.errors import ConfigValueError, ContextWindowSizeExceededError
from py_engine.generation.cached_tokens import CachedTokens
from py_engine.generation.control import DrawControl
from py_engine.generation.logit_processor import guarded
from py_engine.generation.logprobs import LogprobLog
from py_engine.generation.params import FinishReason, GenerationParams, Piece
from py_engine.generation.prompt_lookup import PromptLookup
from py_engine.generation.seat import Seat
from py_engine.generation.statistics import Latencies, Statistics
from py_engine.generation.steps import ControlledSteps, DraftedSteps, RunAhead, Steps
from py_engine.generation.stop import StopStrings
from py_engine.models.base import Draw, TextModel
from py_engine.models.images import chunk_end
from py_engine.tokenizer import Tokenizer

# Steps enqueued at once when tokens are replayed, between two chances to interrupt.
REPLAY_CHUNK = 16

# Longest stretch without giving other tasks and messages a turn. A GPU that is faster than Python
# has every step ready when it is awaited, and such awaits let no message through.
MAX_TURN_S = 0.01

# A step that was awaited this long was a real wait, in which everything else had its turn.
REAL_WAIT_S = 0.002


class Generation:
    """One reply in the making.

    `finish_reason` is None until the reply has ended; `text` is the reply so far. `cached` are the
    tokens that the KV cache of the model's own sequence holds.
    `is_replaying` as long as the pieces are those of `GenerationParams.replayed`.
    """

    def __init__(
        self,
        model: TextModel,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        params: GenerationParams,
        cached: CachedTokens | None = None,
    ) -> None:
        _check_prompt(prompt, model.context_window_size)
        self._prompt = prompt
        self._params = params
        self._seat = Seat(model, cached)
        room = model.context_window_size - len(prompt) + 1
        self._limit = room if params.max_tokens is None else min(room, params.max_tokens)
        self._detokenizer = tokenizer.detokenizer(keep=params.kept_special_ids)
        self._stop = StopStrings(params.stop_strings)
        self._logprobs = LogprobLog(tokenizer)
        self._control: DrawControl | None = None
        self._pieces: list[str] = []
        self._interrupted: FinishReason | None = None
        self._failure: Exception | None = None
        self._last_time = self._turn_began = 0.0
        self.is_replaying = bool(params.replayed)
        self.finish_reason: FinishReason | None = None
        self.statistics = Statistics()
        self.latencies = Latencies()

    @property
    def text(self) -> str:
        """The reply so far."""
        return "".join(self._pieces)

    @property
    def prompt(self) -> Sequence[int]:
        """The prompt's tokens."""
        return self._prompt

    @property
    def prompt_tokens(self) -> int:
        """The number of the prompt's tokens."""
        return len(self._prompt)

    def interrupt(self, reason: FinishReason = "abort") -> None:
        """End the reply after the token or prefill chunk at hand, for this reason."""
        self._interrupted = reason

    def fail(self, error: Exception) -> None:
        """Make the reply raise `error` instead of its next token: the model is gone."""
        self._failure = error

    async def pieces(self, seat: Seat | None = None) -> AsyncGenerator[Piece, None]:
        """Generate the reply in `seat`, by default the model's own sequence.

        Yields its text as it becomes certain, never an empty one. What a sequence of the model has
        of the prompt's beginning is not prefilled.

        Closing the iterator, or cancelling whoever waits for it, ends the reply; the model is
        free when that has returned. Raises DeviceLostError, LogitProcessorError and what was given
        to `fail`.
        """
        self._last_time = self._turn_began = time.perf_counter()
        if seat is not None:
            self._seat = seat
        steps: Steps | None = None
        recorder = self._params.recorder
        try:
            self._control = await self._draw_control()
            for draw in self._params.replayed:
                piece = self._piece(self._replay(draw))
                if piece is not None:
                    yield piece
                await self._let_others_run()
            self.is_replaying = False
            while self.finish_reason is None:
                if self._interrupted is not None:
                    text = self._finish(self._interrupted)
                elif steps is None:
                    async with self._seat.prefilling:
                        steps = await self._begin()
                    continue
                else:
                    draw = await self._next(steps)
                    text = self._take(draw)
                    if recorder is not None:
                        await recorder.put(draw, text)
                piece = self._piece(text)
                if piece is not None:
                    yield piece
                await self._let_others_run()
                self._raise_failure()
        finally:
            await self._end(steps)

    @property
    def _model(self) -> TextModel:
        return self._seat.model

    @property
    def _cached(self) -> CachedTokens:
        return self._seat.cached

    async def _draw_control(self) -> DrawControl | None:
        params = self._params
        if not params.is_controlled:
            return None
        if params.logit_processor is not None:
            guarded(params.logit_processor.reset_state)
        return DrawControl(
            None if params.grammar is None else await params.grammar.matcher(),
            params.logit_processor,
            self.latencies,
            wait_for=params.grammar_after,
        )

    def _replay(self, draw: Draw) -> str:
        if self._control is not None:
            self._control.accept(draw.token_id)
        self.statistics.completion_tokens += 1
        self._last_time = time.perf_counter()
        return self._take(draw)

    async def _begin(self) -> Steps | None:
        """Bring the prompt and what is replayed into the sequence; None when interrupted."""
        drawn = [draw.token_id for draw in self._params.replayed]
        is_exact = self._params.is_reproducible
        prompt = self._prompt if is_exact or not drawn else [*self._prompt, *drawn]
        if not await self._prefill(prompt, drawn):
            return None
        if is_exact and not await self._append_exactly(drawn):
            return None
        has_logits = is_exact and bool(drawn)
        limit = self._limit - len(drawn)
        if self._control is not None:
            return ControlledSteps(self._model, limit, self._control, has_logits=has_logits)
        most = self._params.draft_tokens and await self._model.prepare_drafts(
            self._params.draft_tokens
        )
        if not most:
            return RunAhead(self._model, limit, has_logits=has_logits)
        lookup = PromptLookup(self._prompt, self._params.prediction)
        for token_id in drawn:
            lookup.put(token_id)
        return DraftedSteps(
            self._model, limit, lookup, most, self.statistics, has_logits=has_logits
        )

    async def _prefill(self, prompt: Sequence[int], drawn: Sequence[int]) -> bool:
        """Bring `prompt` into the model's sequence; False when interrupted before its end."""
        size = self._model.prefill_chunk_size
        is_reproducible = self._params.is_reproducible
        kept = await self._seat.keep_prefix(prompt, prefilled_only=is_reproducible)
        self.statistics.cached_tokens = min(kept, len(self._prompt))
        self._model.start(
            self._params.sampling, kept, len(prompt), drawn, is_reproducible=is_reproducible
        )
        start = kept
        while start < len(prompt):
            end = chunk_end(prompt, start, size, self._model.vision)
            chunk, start = prompt[start:end], end
            await self._model.prefill(chunk)
            self._cached.append_prefilled(chunk)
            self.statistics.prefilled_tokens += len(chunk)
            if not await self._may_go_on():
                return False
        return True

    async def _append_exactly(self, drawn: Sequence[int]) -> bool:
        """Bring drawn tokens into the sequence as they were; False when interrupted before."""
        for start in range(0, len(drawn), REPLAY_CHUNK):
            chunk = drawn[start : start + REPLAY_CHUNK]
            await self._model.replay(chunk)
            self._cached.append_decoded(chunk)
            if not await self._may_go_on():
                return False
        return True

    async def _may_go_on(self) -> bool:
        """Let others run between two chunks; returns whether there is no interruption."""
        await asyncio.sleep(0)
        self._raise_failure()
        return self._interrupted is None

    async def _end(self, steps: Steps | None) -> None:
        try:
            if steps is not None:
                await steps.drain()
        finally:
            if steps is not None:
                self._cached.append_decoded(steps.appended)
            if self._control is not None:
                self._control.close()
            self.statistics.grammar_s = sum(self.latencies.grammar_bitmask_s)

    async def _next(self, steps: Steps) -> Draw:
        asked = time.perf_counter()
        draw = await steps.next()
        now = time.perf_counter()
        if now - asked > REAL_WAIT_S:
            self._turn_began = now
        self._count_token(now)
        return draw

    def _take(self, draw: Draw) -> str:
        """Return the text that a token makes certain."""
        if draw.token_id in self._params.stop_token_ids:
            return self._finish("stop")
        text = self._detokenizer.put(draw.token_id)
        self._logprobs.put(draw, text)
        if self._control is not None:
            self._control.see(text)
        shown = self._stop.put(text)
        if self._stop.found:
            self.finish_reason = "stop"
        elif self._control is not None and self._control.is_finished:
            shown += self._finish("stop")
        elif self.statistics.completion_tokens >= self._limit:
            shown += self._finish("length")
        return shown

    def _finish(self, reason: FinishReason) -> str:
        """End the reply and return the text that was held back."""
        self.finish_reason = reason
        rest = self._detokenizer.finish()
        shown = self._stop.put(rest)
        return shown + self._stop.finish()

    def _piece(self, text: str) -> Piece | None:
        is_last = self.finish_reason is not None and not self._stop.found
        logprobs = self._logprobs.take(text, is_last=is_last)
        if not text and not logprobs:
            return None
        self._pieces.append(text)
        return Piece(text, logprobs)

    def _count_token(self, now: float) -> None:
        statistics = self.statistics
        if not self.latencies.total_s:
            statistics.prefill_s = now - self._last_time
        else:
            statistics.decode_steps += 1
            statistics.decode_s += now - self._last_time
        statistics.completion_tokens += 1
        self.latencies.total_s.append(now - self._last_time)
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
