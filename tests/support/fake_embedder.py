"""An Embedder that computes without a model, and lets a test act in the middle."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence


class FakeEmbedder:
    """The vector of a sequence is (sum of its ids, its length, 3, 4).

    `batches` records what was asked for. Every batch waits for `gate` where it is set; `error`,
    where it is set, is raised then.
    """

    hidden_size = 4

    def __init__(
        self,
        *,
        vocab_size: int = 400,
        context_window_size: int = 12,
        max_batch_size: int = 3,
        max_batch_tokens: int = 20,
    ) -> None:
        self.vocab_size = vocab_size
        self.context_window_size = context_window_size
        self.max_batch_size = max_batch_size
        self.max_batch_tokens = max_batch_tokens
        self.batches: list[list[list[int]]] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.is_destroyed = False

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[array[float]]:
        assert not self.is_destroyed, "used after destroy"
        assert 0 < len(batch) <= self.max_batch_size
        assert sum(map(len, batch)) <= self.max_batch_tokens
        self.batches.append([list(ids) for ids in batch])
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [array("f", [sum(ids), len(ids), 3, 4]) for ids in batch]

    def destroy(self) -> None:
        self.is_destroyed = True
