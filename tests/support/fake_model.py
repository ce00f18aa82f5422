"""A TextModel that follows a script instead of computing."""

from __future__ import annotations

import asyncio
import copy
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from py_engine.chat_config import ActivationDtype
from py_engine.errors import ContextWindowSizeExceededError
from py_engine.models.base import Draw, SamplingParams


class FakeModel:
    """Draws the ids of `script` one after another for every sequence, then 0 for ever.

    A mask that forbids the script's id makes it draw the lowest allowed one, and logits that were
    written the likeliest one. It verifies drafts of up to `longest_draft` tokens. It records what
    it was asked, checks the contract of `TextModel`, and lets a test act in the middle:
    `on_step(n)` runs when the n-th token of a sequence is read, before it is given out; `gate`,
    when set, holds every read until it is set. `fail_at` maps token numbers to errors. `sequence`
    are the tokens in its KV cache. It has up to `most_sequences` with its `forks`, which share its
    records. One that `is_full` needs memory that others have to free.
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
        self.activation_dtype: ActivationDtype = "float32"
        self.steps_in_flight = 2
        self.has_all_kernels = True
        self.longest_draft = 7
        self.most_sequences = 1
        self.is_full = False
        self.forks: list[FakeModel] = []
        self.vision: Any = None
        self.free_memory: Callable[[], bool] = lambda: False
        self.script = list(script)
        self.samplings: list[SamplingParams] = []
        self.kept: list[int] = []
        self.chunks: list[list[int]] = []
        self.masks: list[Any] = []
        self.replayed: list[int] = []
        self.drafts: list[list[int]] = []
        self.sequence: list[int] = []
        self.room = 0
        self.on_step: Callable[[int], None] | None = None
        self.on_prefill: Callable[[int], None] | None = None
        self.gate: asyncio.Event | None = None
        self.fail_at: dict[int, Exception] = {}
        self.in_flight = self.most_in_flight = 0
        self.is_destroyed = False
        self._drawn = 0
        self._last = 0
        self._has_logits = False
        self._written: array[float] | None = None

    @property
    def tokens_drawn(self) -> int:
        """Tokens drawn in this sequence, read or not."""
        return self._drawn

    def reusable_tokens(self, n_tokens: int) -> int:
        return n_tokens

    def start(
        self,
        sampling: SamplingParams,
        kept_tokens: int = 0,
        prompt_tokens: int = 0,
        drawn: Sequence[int] = (),
        *,
        is_reproducible: bool = False,
    ) -> None:
        self._require_idle()
        assert 0 <= kept_tokens <= len(self.sequence), "keeps what is not there"
        self.samplings.append(sampling)
        self.kept.append(kept_tokens)
        self.chunks = []
        self.masks = []
        self.replayed = []
        self.drafts = []
        del self.sequence[kept_tokens:]
        self._drawn = len(drawn)
        self._has_logits = False

    async def fork(self) -> FakeModel | None:
        if len(self.forks) + 1 >= self.most_sequences:
            return None
        fork = copy.copy(self)
        fork.sequence, fork.forks, fork.chunks, fork.in_flight = [], [], [], 0
        self.forks.append(fork)
        return fork

    async def adopt(self, other: FakeModel, n_tokens: int) -> int:
        self.sequence = other.sequence[:n_tokens]
        assert len(self.sequence) == n_tokens, "adopts what is not there"
        return n_tokens

    async def prefill(self, token_ids: Sequence[int]) -> None:
        self._require_idle()
        assert 0 < len(token_ids) <= self.prefill_chunk_size
        self._append(token_ids)
        self.chunks.append(list(token_ids))
        if self.on_prefill is not None:
            self.on_prefill(len(self.chunks))
        await asyncio.sleep(0)

    async def replay(self, token_ids: Sequence[int]) -> None:
        self._require_idle()
        assert self.chunks, "a replay before prefill"
        self._append(token_ids)
        self.replayed += token_ids
        self._has_logits = True
        await asyncio.sleep(0)

    async def reserve(self, n_tokens: int) -> None:
        if self.is_full:
            assert self.free_memory(), "memory is full, and nothing is to be freed"
            self.is_full = False
        self.room = len(self.sequence) + n_tokens

    def sample(self) -> Awaitable[Draw]:
        self.first_logits()
        return self.draw()

    def decode(self) -> Awaitable[Draw]:
        self.next_logits()
        return self.draw()

    async def prepare_drafts(self, n_tokens: int) -> int:
        return min(n_tokens, self.longest_draft)

    async def verify(self, token_id: int, draft: Sequence[int]) -> list[int]:
        assert self.in_flight == 0, "a draft while steps are in flight"
        assert token_id == self._last, "a draft behind another token"
        assert 0 < len(draft) <= self.longest_draft
        self.drafts.append(list(draft))
        self._append([token_id, *draft])
        draws = []
        for expected in (*draft, None):
            self._has_logits = True
            draws.append((await self.draw()).token_id)
            if draws[-1] != expected:
                break
        del self.sequence[len(self.sequence) - len(draft) - 1 + len(draws) :]
        return draws

    def first_logits(self) -> None:
        assert self.chunks, "logits before prefill"
        self._has_logits = True

    def next_logits(self) -> None:
        assert self._drawn, "a next step before the first draw"
        assert self.room > len(self.sequence), "a next step without room"
        self._append([self._last])
        self._has_logits = True

    def draw(self, mask: Any = None) -> Awaitable[Draw]:
        assert self._has_logits, "a draw without logits"
        self._has_logits = False
        number = self._drawn
        self._drawn += 1
        self.masks.append(mask)
        self._last = token_id = self._choose(number, mask)
        self._written = None
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        top = self.samplings[-1].top_logprobs
        if top is None:
            return self._read(number, Draw(token_id))
        likeliest = tuple((i, -0.5 - i) for i in range(top))
        return self._read(number, Draw(token_id, -0.25, likeliest))

    async def read_logits(self) -> array[float]:
        assert self._has_logits, "no logits at hand"
        await asyncio.sleep(0)
        return array("f", bytes(4 * self.vocab_size))

    def write_logits(self, logits: Any) -> None:
        assert self._has_logits, "no logits at hand"
        self._written = array("f", memoryview(logits).cast("B").tobytes())
        assert len(self._written) == self.vocab_size

    def destroy(self) -> None:
        self.is_destroyed = True

    def _choose(self, number: int, mask: Any) -> int:
        if self._written is not None:
            allowed = _allowed(mask, self.vocab_size)
            return max(allowed, key=self._written.__getitem__)
        scripted = self.script[number] if number < len(self.script) else 0
        if mask is None:
            return scripted
        allowed = _allowed(mask, self.vocab_size)
        return scripted if scripted in allowed else allowed[0]

    def _require_idle(self) -> None:
        assert not self.is_destroyed, "used after destroy"
        assert self.in_flight == 0, "a new sequence while steps are in flight"

    def _append(self, token_ids: Sequence[int]) -> None:
        assert not self.is_destroyed, "used after destroy"
        if len(self.sequence) + len(token_ids) > self.context_window_size:
            raise ContextWindowSizeExceededError("the KV cache is full")
        self.sequence += token_ids

    async def _read(self, number: int, draw: Draw) -> Draw:
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if self.on_step is not None:
                self.on_step(number)
            if number in self.fail_at:
                raise self.fail_at[number]
            return draw
        finally:
            self.in_flight -= 1


def _allowed(mask: Any, vocab_size: int) -> list[int]:
    if mask is None:
        return list(range(vocab_size))
    words = memoryview(mask).cast("B").cast("I")
    return [i for i in range(vocab_size) if words[i // 32] >> (i % 32) & 1]
