"""References of one token over a batch, row by row; see `reference.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from py_engine.kernels.reference import Buffers, Constants

    Reference = Callable[[Constants, int, Buffers], None]
    Places = Callable[[Constants, int, Sequence[int]], Mapping[str, slice]]


def by_rows(places: Places) -> Callable[[Reference], Reference]:
    """Let the reference of one token take those of a batch.

    `places` returns what a row has of buffers, given its number and its words in `rows`. It has all
    of those that are not among them.
    """

    def decorated(reference: Reference) -> Reference:
        @wraps(reference)
        def of_batch(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
            if "rows" not in buffers:
                reference(constants, n_tokens, buffers)
                return
            others = {name: buffer for name, buffer in buffers.items() if name != "rows"}
            for row, words in enumerate(np.reshape(buffers["rows"], (-1, 4))[:n_tokens].tolist()):
                own = places(constants, row, words)
                parts = {name: buffer[own.get(name, ...)] for name, buffer in others.items()}
                reference(constants, 1, parts)

        return of_batch

    return decorated


def span(begin: int, length: int) -> slice:
    """Return the place of so many elements from `begin` on."""
    return slice(begin, begin + length)
