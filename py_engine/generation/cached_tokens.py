"""Which tokens a model's KV cache holds, so that a prompt's known beginning is not prefilled."""

from __future__ import annotations

from collections.abc import Sequence


class CachedTokens:
    """The ids of a model's one sequence, as far as they are certain to be in its KV cache.

    The first ones are there as a prefill computed them. Those after the first token that decoding
    appended are equal but for rounding.
    """

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._n_prefilled = 0

    def __len__(self) -> int:
        return len(self._ids)

    def common_prefix(self, prompt: Sequence[int], *, prefilled_only: bool = False) -> int:
        """Return how many of the first tokens of `prompt` are the cached ones.

        `prefilled_only` counts no further than a prefill of the prompt would give the same bits.
        """
        cached = self._n_prefilled if prefilled_only else len(self._ids)
        limit = min(cached, len(prompt))
        if self._ids[:limit] == list(prompt[:limit]):
            return limit
        return next(i for i in range(limit) if self._ids[i] != prompt[i])

    def keep(self, n_tokens: int) -> None:
        """Forget all but the first `n_tokens`."""
        del self._ids[n_tokens:]
        self._n_prefilled = min(self._n_prefilled, n_tokens)

    def adopt(self, other: CachedTokens, n_tokens: int) -> None:
        """Have the first `n_tokens` of another sequence, as it has them."""
        self._ids = other._ids[:n_tokens]
        self._n_prefilled = min(other._n_prefilled, n_tokens)

    def append_prefilled(self, token_ids: Sequence[int]) -> None:
        """Note tokens that a prefill appended."""
        if self._n_prefilled == len(self._ids):
            self._n_prefilled += len(token_ids)
        self._ids += token_ids

    def append_decoded(self, token_ids: Sequence[int]) -> None:
        """Note tokens that decoding appended, one after another."""
        self._ids += token_ids
