"""Attention with a sliding window and sinks: kernels against NumPy, and both against a dense rule.

The dense rule (`conformance/dense.py`) knows nothing of slots, rings and absolute positions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention import (
    AttentionShape,
    SlidingWindow,
    attention_decode,
    attention_prefill,
    rope_append,
    rope_table,
)
from py_engine.kernels.reference import REFERENCES
from tests.conformance.dense import dense_attention
from tests.kernels.cases import RunKernel, assert_close, expected_and_found, padded, poisoned
from tests.kernels.test_attention import TOLERANCE, assert_same_caches
from tests.support.numpy_device import binding_view

CONTEXT = 4096
THETA = 10000.0
MILLION = 1 << 20
SHAPES = [(4, 2, 16), (9, 3, 64), (2, 1, 256)]
WINDOWS = [(1, 0, 1), (5, 4, 3), (16, 0, 16), (24, 4, 64), (70, 3, 33), (130, 1, 9)]
"""Size, sinks, longest chunk: below, on and past a workgroup's 64 keys; shorter than a chunk."""

CASES = [
    *((SHAPES[0], window) for window in WINDOWS),
    (SHAPES[1], WINDOWS[4]),
    (SHAPES[2], WINDOWS[3]),
]


def inv_freq_of(head_dim: int) -> list[float]:
    return [THETA ** (-2 * i / head_dim) for i in range(head_dim // 2)]


def inputs_for(spec: KernelSpec, shape: AttentionShape, position: int, n_tokens: int) -> dict:
    """Return random buffers; only what the chunk's queries may see is in the cache, else NaN."""
    rng = np.random.default_rng(position + shape.head_dim)
    window = shape.window
    assert window is not None
    cache = rng.normal(size=(2, shape.n_kv_heads, shape.slots, shape.head_dim)).astype(np.float16)
    first = max(0, position + 1 - (window.size - window.sinks))
    stored = [p for p in range(position + n_tokens) if p < window.sinks or p >= first]
    slots = [
        p if p < window.sinks else window.sinks + (p - window.sinks) % window.ring for p in stored
    ]
    assert len(set(slots)) == len(slots)
    unseen = np.setdiff1d(np.arange(shape.slots), slots)
    cache[:, :, unseen] = np.nan
    everything = {
        "qkv": rng.normal(0, 2, (n_tokens, shape.qkv_heads, shape.head_dim)).astype(np.float32),
        "q_norm": rng.normal(1, 0.5, shape.head_dim).astype(np.float32),
        "k_norm": rng.normal(1, 0.5, shape.head_dim).astype(np.float32),
        "rope": np.array(rope_table(inv_freq_of(shape.head_dim), shape.context), np.float32),
        "state": np.array([position, n_tokens, 0, 0], np.uint32),
        "k_cache": cache[0],
        "v_cache": cache[1],
        "output": poisoned(n_tokens * shape.n_heads * shape.head_dim),
    }
    return {binding.name: everything[binding.name] for binding in spec.bindings}


def windowed(
    shape: tuple[int, int, int], window: tuple[int, int, int], qk_norm_eps: float | None = None
) -> AttentionShape:
    return AttentionShape(*shape, CONTEXT, SlidingWindow.for_chunks(*window), qk_norm_eps)


@pytest.mark.parametrize("eps", [None, 1e-6])
@pytest.mark.parametrize(("shape", "window"), CASES, ids=str)
def test_decode(
    run_kernel: RunKernel,
    shape: tuple[int, int, int],
    window: tuple[int, int, int],
    eps: float | None,
) -> None:
    """Before, on and past the border of the window, and where the ring has gone round."""
    heads = windowed(shape, window, eps)
    spec = attention_decode("attention under test", heads)
    size, sinks, _ = window
    ring = heads.slots - sinks
    for position in sorted({0, sinks, size - 1, size, sinks + ring - 1, sinks + 3 * ring, 3001}):
        inputs = inputs_for(spec, heads, position, 1)
        result = expected_and_found(run_kernel, spec, inputs)
        assert_same_caches(result)
        assert_close(result["output"], TOLERANCE)


@pytest.mark.parametrize(("shape", "window"), CASES, ids=str)
def test_prefill(
    run_kernel: RunKernel, shape: tuple[int, int, int], window: tuple[int, int, int]
) -> None:
    heads = windowed(shape, window)
    size, sinks, chunk = window
    append = rope_append("rope under test", heads, chunk)
    attend = attention_prefill("attention under test", heads, chunk)
    ring = heads.slots - sinks
    for position in sorted({0, max(0, size - chunk), size, sinks + ring - 1, 2999}):
        for n_tokens in sorted({1, chunk}):
            inputs = inputs_for(append, heads, position, n_tokens)
            inputs["qkv"].resize((chunk, *inputs["qkv"].shape[1:]), refcheck=False)
            result = expected_and_found(run_kernel, append, inputs, n_tokens)
            assert_same_caches(result)
            assert_close(result["qkv"], 1e-6)
            inputs = inputs_for(attend, heads, position, n_tokens)
            inputs["qkv"].resize((chunk, *inputs["qkv"].shape[1:]), refcheck=False)
            inputs["output"] = poisoned(chunk * heads.n_heads * heads.head_dim)
            result = expected_and_found(run_kernel, attend, inputs, n_tokens)
            assert_close(result["output"], 1e-5)


def run_reference(
    spec: KernelSpec, buffers: Mapping[str, bytes], n_tokens: int
) -> dict[str, bytes]:
    """Run a kernel's NumPy reference as `run_kernel` runs the kernel."""
    data = {name: np.frombuffer(held, np.uint8).copy() for name, held in buffers.items()}
    views = {b.name: binding_view(b, data[b.name]) for b in spec.bindings}
    REFERENCES[spec.name](spec.constants, n_tokens, views)
    return {b.name: data[b.name].tobytes() for b in spec.bindings if b.access == "read_write"}


def attend_in_steps(
    run: RunKernel, shape: AttentionShape, qkv: np.ndarray, chunks: list[int], offset: int
) -> np.ndarray:
    """Take a sequence through the kernels: chunks of prefill, a chunk of 0 being a decode step."""
    kinds = {
        "decode": attention_decode("decode", shape),
        "append": rope_append("append", shape, max(1, *chunks)),
        "prefill": attention_prefill("prefill", shape, max(1, *chunks)),
    }
    cache = np.full(shape.cache_bytes // 4, 0, np.uint32)
    held = {
        "rope": padded(np.array(rope_table(inv_freq_of(shape.head_dim), shape.context), "f4")),
        "k_cache": padded(cache),
        "v_cache": padded(cache),
    }

    def dispatch(kind: str, n_tokens: int) -> None:
        spec = kinds[kind]
        held.update(run(spec, {b.name: held[b.name] for b in spec.bindings}, n_tokens))

    outputs, done = [], 0
    for chunk in chunks:
        n_tokens = chunk or 1
        rows = np.zeros((max(1, *chunks) if chunk else 1, *qkv.shape[1:]), np.float32)
        rows[:n_tokens] = qkv[done : done + n_tokens]
        held["qkv"] = padded(rows)
        held["state"] = padded(np.array([offset + done, n_tokens, 0, 0], np.uint32))
        held["output"] = padded(poisoned(len(rows) * shape.n_heads * shape.head_dim))
        for kind in ("append", "prefill") if chunk else ("decode",):
            dispatch(kind, n_tokens)
        size = n_tokens * shape.n_heads * shape.head_dim
        found = np.frombuffer(held["output"], np.float32)[:size]
        outputs.append(found.reshape(n_tokens, shape.n_heads, shape.head_dim))
        done += n_tokens
    return np.concatenate(outputs)


def random_sequence(shape: tuple[int, int, int], n_tokens: int) -> tuple[np.ndarray, ...]:
    n_heads, n_kv_heads, head_dim = shape
    rng = np.random.default_rng(head_dim + n_tokens)
    qkv = rng.normal(size=(n_tokens, n_heads + 2 * n_kv_heads, head_dim)).astype(np.float32)
    return qkv, *np.split(qkv, [n_heads, n_heads + n_kv_heads], axis=1)


def assert_steps_equal_the_dense_rule(
    run: RunKernel, size: int, sinks: int, chunks: list[int]
) -> None:
    shape = (4, 2, 16)
    qkv, q, k, v = random_sequence(shape, sum(chunk or 1 for chunk in chunks))
    heads = windowed(shape, (size, sinks, max(1, *chunks)))
    found = attend_in_steps(run, heads, qkv, chunks, 0)
    # Keys that the cache rounds to f16 move an output by 2^-11 of the largest, a few times.
    assert_close((dense_attention(q, k, v, size, sinks, THETA), found), TOLERANCE)


def assert_far_positions_are_as_exact_as_near_ones(run: RunKernel) -> None:
    """At the last of a million positions the window's distances still are what they are at 0."""
    shape, size, chunks = (4, 2, 64), 8, [10, 10, *[0] * 10]
    qkv, q, k, v = random_sequence(shape, 30)
    heads = AttentionShape(*shape, MILLION, SlidingWindow.for_chunks(size, 0, 10))
    found = attend_in_steps(run, heads, qkv, chunks, MILLION - 30)
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
    run_kernel: RunKernel, size: int, sinks: int, chunks: list[int]
) -> None:
    assert_steps_equal_the_dense_rule(run_kernel, size, sinks, chunks)


def test_references_are_exact_far_out() -> None:
    assert_far_positions_are_as_exact_as_near_ones(run_reference)


def test_kernels_are_exact_far_out(run_kernel: RunKernel) -> None:
    assert_far_positions_are_as_exact_as_near_ones(run_kernel)


@pytest.mark.parametrize("position", [0, 1023, 131_071, MILLION - 1])
def test_rotation_is_accurate_far_out(run_kernel: RunKernel, position: int) -> None:
    """Angle addition in f32 stays within 1e-6 of float64."""
    heads = AttentionShape(1, 1, 8, position + 1, SlidingWindow.for_chunks(4, 0, 1))
    spec = rope_append("rope under test", heads, 1)
    inputs = inputs_for(spec, heads, position, 1)
    angle = position * np.array(inv_freq_of(8))
    low, high = np.split(inputs["qkv"][0, 0].astype(np.float64), 2)
    exact = np.concatenate(
        [low * np.cos(angle) - high * np.sin(angle), high * np.cos(angle) + low * np.sin(angle)]
    )
    expected, found = expected_and_found(run_kernel, spec, inputs, 1)["qkv"]
    assert_close((exact, found[:8]), 1e-6)
    assert_close((exact, expected[:8]), 1e-6)
