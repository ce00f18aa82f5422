"""A TextModel that follows a script instead of computing."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Sequence

from py_engine.errors import ContextWindowSizeExceededError
from py_engine.models.base import SamplingParams


class FakeModel:
    """Draws the ids of `script` one after another for every sequence, then 0 for ever.

    It records what it was asked, checks the contract of `TextModel`, and lets a test act in the
    middle: `on_step(n)` runs when the n-th token of a sequence is read, before it is given out;
    `gate`, when set, holds every read until it is set. `fail_at` maps token numbers to errors.
    """

    def __init__(
        self,
        script: Sequence[int] = (),
        *,
        vocab_size: int = 504,
        context_window_size: int = 64,
        prefill_chunk_size: int = 16,
    ) -> None:
        self.vocab_size = vocab_size
        self.context_window_size = context_window_size
        self.prefill_chunk_size = prefill_chunk_size
        self.script = list(script)
        self.samplings: list[SamplingParams] = []
        self.chunks: list[list[int]] = []
        self.on_step: Callable[[int], None] | None = None
        self.on_prefill: Callable[[int], None] | None = None
        self.gate: asyncio.Event | None = None
        self.fail_at: dict[int, Exception] = {}
        self.in_flight = self.most_in_flight = 0
        self.is_destroyed = False
        self._position = 0
        self._drawn = 0

    @property
    def tokens_drawn(self) -> int:
        """Tokens drawn in this sequence, read or not."""
        return self._drawn

    def start(self, sampling: SamplingParams) -> None:
        self._require_idle()
        self.samplings.append(sampling)
        self.chunks = []
        self._position = self._drawn = 0

    async def prefill(self, token_ids: Sequence[int]) -> None:
        self._require_idle()
        assert 0 < len(token_ids) <= self.prefill_chunk_size
        self._advance(len(token_ids))
        self.chunks.append(list(token_ids))
        if self.on_prefill is not None:
            self.on_prefill(len(self.chunks))
        await asyncio.sleep(0)

    def sample(self) -> Awaitable[int]:
        assert self._position, "sample before prefill"
        return self._draw()

    def decode(self) -> Awaitable[int]:
        assert self._drawn, "decode before sample"
        self._advance(1)
        return self._draw()

    async def read_logits(self) -> array[float]:
        return array("f", bytes(4 * self.vocab_size))

    def destroy(self) -> None:
        self.is_destroyed = True

    def _require_idle(self) -> None:
        assert not self.is_destroyed, "used after destroy"
        assert self.in_flight == 0, "a new sequence while steps are in flight"

    def _advance(self, n_tokens: int) -> None:
        assert not self.is_destroyed, "used after destroy"
        if self._position + n_tokens > self.context_window_size:
            raise ContextWindowSizeExceededError("the KV cache is full")
        self._position += n_tokens

    def _draw(self) -> Awaitable[int]:
        number = self._drawn
        self._drawn += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return self._read(number)

    async def _read(self, number: int) -> int:
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if self.on_step is not None:
                self.on_step(number)
            if number in self.fail_at:
                raise self.fail_at[number]
            return self.script[number] if number < len(self.script) else 0
        finally:
            self.in_flight -= 1
