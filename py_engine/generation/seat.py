"""Where one reply at a time is generated: a sequence of a model, and what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from py_engine.generation.cached_tokens import CachedTokens
from py_engine.models.base import TextModel

LEAST_COPIED = 16
"""How many tokens more another sequence must have of a prompt's beginning for a copy to pay."""


class Seat:
    """One sequence of a model; `cached` are the tokens that its KV cache holds.

    Of a model with several, `first` is the seat of the model itself, and each knows all `seats`.
    They share working memory, so `prefilling` is held from `keep_prefix` to the first draw.
    """

    def __init__(
        self, model: TextModel, cached: CachedTokens | None = None, first: Seat | None = None
    ) -> None:
        self.model = model
        self.cached = CachedTokens() if cached is None else cached
        self.seats: list[Seat] = [] if first is None else first.seats
        self.prefilling: asyncio.Lock = asyncio.Lock() if first is None else first.prefilling
        self.seats.append(self)

    async def keep_prefix(self, prompt: Sequence[int], *, prefilled_only: bool = False) -> int:
        """Let the sequence have as much of a prompt's beginning as any has; return how much.

        Its last token is always computed: its logits are what the first draw is from.
        `prefilled_only` as in `CachedTokens.common_prefix`.
        """
        kept = {seat: seat._reusable(prompt, prefilled_only) for seat in self.seats}
        own, most = kept[self], max(self.seats, key=kept.__getitem__)
        if kept[most] >= own + LEAST_COPIED:
            copied = await self.model.adopt(most.model, kept[most])
            if copied:
                self.cached.adopt(most.cached, copied)
                own = copied
        self.cached.keep(own)
        return own

    def _reusable(self, prompt: Sequence[int], prefilled_only: bool) -> int:
        common = self.cached.common_prefix(prompt, prefilled_only=prefilled_only)
        return self.model.reusable_tokens(min(common, len(prompt) - 1))
