"""Inputs of the sampling kernels, and what a count of draws says about a distribution."""

from __future__ import annotations

from math import erfc, sqrt
from typing import Any

import numpy as np

from py_engine.kernels.sampling import pack_sampling

Array = np.ndarray[Any, Any]

FORBIDDEN = np.float32(-3.4e38)


def packed(**fields: Any) -> Array:
    """Return the struct `sampling` as bytes."""
    return np.frombuffer(pack_sampling(**fields), np.uint8)


def state_words(step: int = 0, token: int = 0) -> Array:
    """Return `state` after a chunk of 3 tokens that followed 17."""
    return np.array([17, 3, token, step], np.uint32)


def mask_words(allowed: Array) -> Array:
    """Return the mask of a boolean vector: token i is bit i % 32 of word i // 32."""
    words = np.zeros(-(-len(allowed) // 32), np.uint32)
    for token in np.flatnonzero(allowed):
        words[token >> 5] |= np.uint32(1 << (token & 31))
    return words


def chi_square_p(counts: Array, probabilities: Array) -> float:
    """Return how likely counts at least this far from `probabilities` are (Pearson's test).

    Tokens that are expected less than 5 times share a cell; 0 when one without probability was
    drawn. The tail is Wilson and Hilferty's approximation (1931).
    """
    if counts[probabilities == 0].any():
        return 0.0
    expected = probabilities * counts.sum()
    rare = expected < 5
    cells = [*zip(counts[~rare], expected[~rare], strict=True)]
    if expected[rare].sum() > 0:
        cells.append((counts[rare].sum(), expected[rare].sum()))
    statistic = sum((found - wanted) ** 2 / wanted for found, wanted in cells)
    freedom = len(cells) - 1
    if freedom == 0:
        return 1.0
    variance = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - variance)) / sqrt(variance)
    return erfc(z / sqrt(2)) / 2
