"""Attention kernels against NumPy.

Both sides round keys and values to f16 in the cache. Tolerance 2e-3 of the largest value: a key
whose f32 rotation differs in the last bit may round to the neighbouring half (2^-11 relative), and
the scores that it moves are of the order of ten. The caches themselves may differ by one such step.
"""

from __future__ import annotations

import pytest

from py_engine.kernels.attention import attention_decode, attention_prefill, rope_append
from py_engine.kernels.attention_shape import AttentionShape, QkNorm
from py_engine.kernels.tuning import Tuning
from tests.kernels.attention_cases import assert_same_caches, decode_runner, inputs_for
from tests.kernels.cases import RunKernel, assert_close, expected_and_found
from tests.kernels.conftest import lanes_of_four

TOLERANCE = 2e-3
SHAPES = [
    (1, 1, 8),
    (4, 2, 16),
    (9, 1, 32),
    (9, 3, 64),
    (8, 1, 80),
    (6, 1, 96),
    (6, 6, 128),
    (2, 1, 256),
]
"""Query heads, KV heads, head dimension: MHA, GQA and MQA; 8 and 80 are no multiples of 32."""

QK_NORMS = [None, QkNorm("head_rms", 0.5)]
"""No norms of heads, and an epsilon that shows where it is added."""


CHUNKS = [(0, 1), (0, 64), (5, 3), (63, 65), (191, 9)]
"""Positions and numbers of tokens."""


@pytest.mark.parametrize("norm", QK_NORMS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_decode(
    run_kernel: RunKernel,
    decode_tuning: Tuning,
    shape: tuple[int, int, int],
    norm: QkNorm | None,
) -> None:
    heads = AttentionShape(*shape, 256, qk_norm=norm)
    spec = attention_decode("attention under test", heads, decode_tuning.attention_threads)
    run = decode_runner(run_kernel, heads, decode_tuning)
    for position in (0, 1, 63, 64, 200, 255):
        result = expected_and_found(run, spec, inputs_for(spec, heads, position, 1))
        assert_same_caches(result)
        assert_close(result["output"], TOLERANCE)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 128),
        (4, 2, 64),
        (3, 1, 64),
        (4, 1, 96),
        (5, 1, 32),
        (14, 2, 64),
        (8, 1, 32),
        (9, 1, 32),
    ],
    ids=str,
)
def test_lanes_share_keys_for_any_number_of_queries(
    run_kernel: RunKernel, lanes: int | None, shape: tuple[int, int, int]
) -> None:
    """Every size of head and number of queries for a KV head has code of its own."""
    heads, tuning = AttentionShape(*shape, 80), lanes_of_four(lanes)
    spec = attention_decode("attention under test", heads)
    run = decode_runner(run_kernel, heads, tuning)
    for position in (0, 4, 79):
        result = expected_and_found(run, spec, inputs_for(spec, heads, position, 1))
        assert_same_caches(result)
        assert_close(result["output"], TOLERANCE)


@pytest.mark.parametrize("norm", QK_NORMS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rope_append(
    run_kernel: RunKernel, shape: tuple[int, int, int], norm: QkNorm | None
) -> None:
    heads = AttentionShape(*shape, 200, qk_norm=norm)
    spec = rope_append("rope under test", heads, 65)
    for position, n_tokens in CHUNKS:
        inputs = inputs_for(spec, heads, position, n_tokens, max_tokens=65)
        assert_same_caches(expected_and_found(run_kernel, spec, inputs, n_tokens))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_prefill(
    run_kernel: RunKernel, prefill_tuning: Tuning, shape: tuple[int, int, int]
) -> None:
    heads = AttentionShape(*shape, 200)
    spec = attention_prefill("attention under test", heads, 65, prefill_tuning)
    for position, n_tokens in CHUNKS:
        inputs = inputs_for(spec, heads, position, n_tokens, max_tokens=65)
        result = expected_and_found(run_kernel, spec, inputs, n_tokens)
        # Here both sides read the same halfs, so only f32 sums differ.
        assert_close(result["output"], 1e-5)
