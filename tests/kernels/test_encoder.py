"""Attention in both directions and pooling against NumPy.

Pooling: 2e-6, a few f32 roundings. Attention: 1e-5, as for the decoder's prefill.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import pytest

from py_engine.kernels.encoder import attention_bidirectional, pool
from tests.kernels.cases import RunKernel, assert_close, expected_and_found, poisoned

LENGTHS = [(1,), (5,), (64,), (3, 1, 4), (63, 2, 1, 70), (130, 65)]
"""Tokens of each sequence of a batch: alone and packed, on and across a workgroup's border."""


def bounds(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return (first token, end) of each sequence."""
    return list(pairwise(accumulate(lengths, initial=0)))


def state(n_tokens: int) -> np.ndarray:
    return np.array([0, n_tokens, 0, 0], np.uint32)


@pytest.mark.parametrize(("n_heads", "head_dim"), [(1, 4), (3, 20), (12, 32), (2, 64), (2, 256)])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_attention(
    run_kernel: RunKernel, n_heads: int, head_dim: int, lengths: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(sum(lengths) + head_dim)
    n_tokens, room = sum(lengths), sum(lengths) + 5
    # Rows past the last token were never written: reading one would show as NaN.
    qkv = poisoned(room * 3 * n_heads * head_dim).view(np.float32).reshape(room, -1)
    qkv[:n_tokens] = rng.normal(0, 2, (n_tokens, 3 * n_heads * head_dim))
    spans = [span for span in bounds(lengths) for _ in range(*span)]
    inputs = {
        "qkv": qkv,
        "spans": np.array(spans + [(0, room)] * 5, np.uint32),
        "state": state(n_tokens),
        "output": poisoned(room * n_heads * head_dim),
    }
    spec = attention_bidirectional("attention under test", n_heads, head_dim, room)
    assert_close(expected_and_found(run_kernel, spec, inputs, n_tokens)["output"], 1e-5)


@pytest.mark.parametrize("hidden", [32, 384, 1056])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_pool(run_kernel: RunKernel, hidden: int, mean: bool, normalize: bool) -> None:
    rng = np.random.default_rng(hidden)
    lengths = (1, 9, 33, 2)
    sequences = np.zeros((7, 2), np.uint32)  # room for seven, of which four are there
    sequences[:4] = bounds(lengths)
    x = poisoned(50 * hidden).view(np.float32).reshape(50, hidden)
    x[: sum(lengths)] = rng.normal(0.5, 3, (sum(lengths), hidden))
    inputs = {"x": x, "sequences": sequences, "output": poisoned(7 * hidden)}
    spec = pool("pool under test", hidden, 50, 7, mean=mean, normalize=normalize)
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], 2e-6)


def test_pooling_of_zeros_stays_zero(run_kernel: RunKernel) -> None:
    inputs = {
        "x": np.zeros((2, 32), np.float32),
        "sequences": np.array([(0, 2)], np.uint32),
        "output": poisoned(32),
    }
    spec = pool("pool under test", 32, 2, 1, mean=True, normalize=True)
    _, found = expected_and_found(run_kernel, spec, inputs)["output"]
    assert not found[:32].any()
