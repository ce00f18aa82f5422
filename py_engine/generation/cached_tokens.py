"""Which tokens a model's KV cache holds, so that a prompt's known beginning is not prefilled."""

from __future__ import annotations

from collections.abc import Sequence


class CachedTokens:
    """The ids of a model's one sequence, as far as they are certain to be in its KV cache."""

    def __init__(self) -> None:
        self._ids: list[int] = []

    def __len__(self) -> int:
        return len(self._ids)

    def common_prefix(self, prompt: Sequence[int]) -> int:
        """Return how many of the first tokens of `prompt` are the cached ones."""
        limit = min(len(self._ids), len(prompt))
        if self._ids[:limit] == list(prompt[:limit]):
            return limit
        return next(i for i in range(limit) if self._ids[i] != prompt[i])

    def keep(self, n_tokens: int) -> None:
        """Forget all but the first `n_tokens`."""
        del self._ids[n_tokens:]

    def append(self, token_ids: Sequence[int]) -> None:
        """Note tokens that were appended."""
        self._ids += token_ids
