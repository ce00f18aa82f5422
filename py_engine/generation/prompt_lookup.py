"""Drafts of a reply out of what the prompt, a prediction and the reply itself say already.

Prompt lookup decoding (Saxena 2023): what followed the last tokens where they stood before is
likely to follow them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LONGEST_NGRAM = 3
"""Tokens that are looked up at most, and first."""

SHORTEST_NGRAM = 2
"""One token alone is followed by too many."""

_BORDER = -1
"""Stands between texts, so that none is taken for the other's continuation."""


class PromptLookup:
    """Knows the tokens of a reply so far, and of the texts that it may repeat.

    A reply that has been its `prediction` so far is expected to go on as it.
    """

    def __init__(self, prompt: Sequence[int], prediction: Sequence[int] = ()) -> None:
        self._prediction = prediction
        self._n_predicted: int | None = 0  # tokens of the reply, as long as they are predicted
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where n-grams last ended
        self._append_all(prompt)
        if prediction:
            self._append_all((_BORDER, *prediction, _BORDER))

    def _append_all(self, token_ids: Iterable[int]) -> None:
        for token_id in token_ids:
            self._append(token_id)

    def _append(self, token_id: int) -> None:
        # N-grams up to the token before this one: those that end with it are to be looked up.
        tokens = self._tokens
        for n in range(SHORTEST_NGRAM, LONGEST_NGRAM + 1):
            if len(tokens) >= n:
                self._after[tuple(tokens[-n:])] = len(tokens)
        tokens.append(token_id)

    def put(self, token_id: int) -> None:
        """Take the reply's next token."""
        n = self._n_predicted
        if n is not None:
            is_predicted = n < len(self._prediction) and self._prediction[n] == token_id
            self._n_predicted = n + 1 if is_predicted else None
        self._append(token_id)

    def draft(self, most: int) -> list[int]:
        """Return up to `most` tokens that may come next; none where nothing is known."""
        if self._n_predicted is not None and self._n_predicted < len(self._prediction):
            return list(self._prediction[self._n_predicted : self._n_predicted + most])
        tokens = self._tokens
        for n in range(LONGEST_NGRAM, SHORTEST_NGRAM - 1, -1):
            at = self._after.get(tuple(tokens[-n:]))
            if at is not None:
                draft = tokens[at : at + most]
                return draft[: draft.index(_BORDER)] if _BORDER in draft else draft
        return []
