"""Attention with a sliding window and sinks: kernels against NumPy, and both against a dense rule.

The dense rule (`conformance/dense.py`) knows nothing of slots, rings and absolute positions.
"""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.attention import attention_decode, attention_prefill, rope_append
from py_engine.kernels.attention_shape import AttentionShape, QkNorm, SlidingWindow
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.conformance.dense import dense_attention
from tests.kernels.attention_cases import (
    THETA,
    assert_same_caches,
    attend_in_steps,
    decode_runner,
    inputs_for,
    inv_freq_of,
)
from tests.kernels.cases import RunKernel, assert_close, expected_and_found, run_reference
from tests.kernels.test_attention import TOLERANCE

CONTEXT = 4096
MILLION = 1 << 20
SHAPES = [(4, 2, 32), (9, 3, 64), (2, 1, 256)]
WINDOWS = [(1, 0, 1), (5, 4, 3), (16, 0, 16), (24, 4, 64), (70, 3, 33), (130, 1, 9)]
"""Size, sinks, longest chunk: below, on and past a workgroup's 64 keys; shorter than a chunk."""

CASES = [
    *((SHAPES[0], window) for window in WINDOWS),
    (SHAPES[1], WINDOWS[4]),
    (SHAPES[2], WINDOWS[3]),
]


def windowed(
    shape: tuple[int, int, int], window: tuple[int, int, int], norm: QkNorm | None = None
) -> AttentionShape:
    return AttentionShape(*shape, CONTEXT, SlidingWindow.for_chunks(*window), norm)


@pytest.mark.parametrize("norm", [None, QkNorm("head_rms", 1e-6)], ids=str)
@pytest.mark.parametrize(("shape", "window"), CASES, ids=str)
def test_decode(
    run_kernel: RunKernel,
    decode_tuning: Tuning,
    shape: tuple[int, int, int],
    window: tuple[int, int, int],
    norm: QkNorm | None,
) -> None:
    """Before, on and past the border of the window, and where the ring has gone round."""
    heads = windowed(shape, window, norm)
    spec = attention_decode("attention under test", heads, decode_tuning.attention_threads)
    run = decode_runner(run_kernel, heads, decode_tuning)
    size, sinks, _ = window
    ring = heads.slots - sinks
    for position in sorted({0, sinks, size - 1, size, sinks + ring - 1, sinks + 3 * ring, 3001}):
        inputs = inputs_for(spec, heads, position, 1)
        result = expected_and_found(run, spec, inputs)
        assert_same_caches(result)
        assert_close(result["output"], TOLERANCE)


@pytest.mark.parametrize(("shape", "window"), CASES, ids=str)
def test_prefill(
    run_kernel: RunKernel,
    prefill_tuning: Tuning,
    shape: tuple[int, int, int],
    window: tuple[int, int, int],
) -> None:
    heads = windowed(shape, window)
    size, sinks, chunk = window
    append = rope_append("rope under test", heads, chunk)
    attend = attention_prefill("attention under test", heads, chunk, prefill_tuning)
    ring = heads.slots - sinks
    for position in sorted({0, max(0, size - chunk), size, sinks + ring - 1, 2999}):
        for n_tokens in sorted({1, chunk}):
            inputs = inputs_for(append, heads, position, n_tokens, max_tokens=chunk)
            assert_same_caches(expected_and_found(run_kernel, append, inputs, n_tokens))
            inputs = inputs_for(attend, heads, position, n_tokens, max_tokens=chunk)
            result = expected_and_found(run_kernel, attend, inputs, n_tokens)
            assert_close(result["output"], 1e-5)


def random_sequence(shape: tuple[int, int, int], n_tokens: int) -> tuple[np.ndarray, ...]:
    n_heads, n_kv_heads, head_dim = shape
    rng = np.random.default_rng(head_dim + n_tokens)
    qkv = rng.normal(size=(n_tokens, n_heads + 2 * n_kv_heads, head_dim)).astype(np.float32)
    return qkv, *np.split(qkv, [n_heads, n_heads + n_kv_heads], axis=1)


def assert_steps_equal_the_dense_rule(
    run: RunKernel, size: int, sinks: int, chunks: list[int], tuning: Tuning = PLAIN
) -> None:
    shape = (4, 2, 16)
    qkv, q, k, v = random_sequence(shape, sum(chunk or 1 for chunk in chunks))
    heads = windowed(shape, (size, sinks, max(1, *chunks)))
    found = attend_in_steps(run, heads, qkv, chunks, tuning=tuning)
    # Keys that the cache rounds to f16 move an output by 2^-11 of the largest, a few times.
    assert_close((dense_attention(q, k, v, size, sinks, THETA), found), TOLERANCE)


def assert_far_positions_are_as_exact_as_near_ones(run: RunKernel) -> None:
    """At the last of a million positions the window's distances still are what they are at 0."""
    shape, size, chunks = (4, 2, 64), 8, [10, 10, *[0] * 10]
    qkv, q, k, v = random_sequence(shape, 30)
    heads = AttentionShape(*shape, MILLION, SlidingWindow.for_chunks(size, 0, 10))
    found = attend_in_steps(run, heads, qkv, chunks, offset=MILLION - 30)
    expected = dense_attention(q, k, v, size, 0, THETA)
    assert_close((expected[size:], found[size:]), TOLERANCE)


STEPS = [
    (12, 0, [7] * 5 + [0] * 15),
    (12, 4, [20, 20, 3] + [0] * 15),
    (5, 4, [1, 9, 9] + [0] * 12),
    (40, 3, [16] * 4 + [5] + [0] * 9 + [16] + [0] * 3),
    (4, 1, [0] * 20),
]
"""Size, sinks, chunks."""


@pytest.mark.parametrize(("size", "sinks", "chunks"), STEPS)
def test_references_equal_the_dense_rule(size: int, sinks: int, chunks: list[int]) -> None:
    assert_steps_equal_the_dense_rule(run_reference, size, sinks, chunks)


@pytest.mark.parametrize(("size", "sinks", "chunks"), STEPS)
def test_kernels_equal_the_dense_rule(
    run_kernel: RunKernel, decode_tuning: Tuning, size: int, sinks: int, chunks: list[int]
) -> None:
    assert_steps_equal_the_dense_rule(run_kernel, size, sinks, chunks, decode_tuning)


def test_references_are_exact_far_out() -> None:
    assert_far_positions_are_as_exact_as_near_ones(run_reference)


def test_kernels_are_exact_far_out(run_kernel: RunKernel) -> None:
    assert_far_positions_are_as_exact_as_near_ones(run_kernel)


@pytest.mark.parametrize("position", [1, 1023, 131_071, MILLION - 1])
def test_rotation_is_accurate_far_out(run_kernel: RunKernel, position: int) -> None:
    """Angle addition in f32 stays within 1e-6 of float64.

    Of two keys one is zero and the other is, for head d, the d-th unit vector with a value of 1: an
    output of sigmoid(s) shows the element s of the rotated query.
    """
    heads = AttentionShape(
        8, 8, 8, position + 1, SlidingWindow.for_chunks(2, 0, 1), rotary_dim=8, scale=1.0
    )
    spec = attention_prefill("attention under test", heads, 1)
    inputs = inputs_for(spec, heads, position, 1)
    query = np.random.default_rng(position).normal(size=8).astype(np.float32)
    inputs["qkv"][0, :8] = query
    inputs["k_cache"][:] = 0
    inputs["v_cache"][:] = 0
    before = (position - 1) % 2
    inputs["k_cache"][before] = np.eye(8)
    inputs["v_cache"][before] = 1
    angle = position * np.array(inv_freq_of(8))
    low, high = np.split(query.astype(np.float64), 2)
    exact = np.concatenate(
        [low * np.cos(angle) - high * np.sin(angle), high * np.cos(angle) + low * np.sin(angle)]
    )
    for output in expected_and_found(run_kernel, spec, inputs, 1)["output"]:
        shown = output[:64:8].astype(np.float64)
        assert_close((exact, np.log(shown / (1 - shown))), 1e-6)
