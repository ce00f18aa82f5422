"""An Embedder whose vectors tell which tokens they are of."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence


class FakeEmbedder:
    """Gives (first token, last token, number of tokens, 1) as the vector of a sequence."""

    vocab_size = 504
    context_window_size = 16
    hidden_size = 4
    max_batch_size = 2
    max_batch_tokens = 32

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.is_destroyed = False

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[array[float]]:
        assert not self.is_destroyed, "used after destroy"
        self.batches.append([list(ids) for ids in batch])
        await asyncio.sleep(0)
        return [array("f", (ids[0], ids[-1], len(ids), 1)) for ids in batch]

    def destroy(self) -> None:
        self.is_destroyed = True
