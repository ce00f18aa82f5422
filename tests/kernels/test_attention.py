"""Attention kernels against NumPy.

Both sides round keys and values to f16 in the cache. Tolerance 2e-3 of the largest value: a key
whose f32 rotation differs in the last bit may round to the neighbouring half (2^-11 relative), and
the scores that it moves are of the order of ten. The caches themselves may differ by one such step.
"""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention import (
    AttentionShape,
    attention_decode,
    attention_prefill,
    rope_append,
    rope_table,
)
from tests.kernels.cases import RunKernel, assert_close, expected_and_found, poisoned

TOLERANCE = 2e-3
SHAPES = [(1, 1, 8), (4, 2, 16), (9, 3, 64), (8, 1, 80), (6, 6, 128), (2, 1, 256)]
"""Query heads, KV heads, head dimension: MHA, GQA and MQA; 8 and 80 are no multiples of 32."""

QK_NORMS = [None, 1e-6, 0.5]
"""No norms of heads, an epsilon as models have it, and one that shows where it is added."""


def inputs_for(
    spec: KernelSpec, shape: tuple[int, int, int], context: int, position: int, n_tokens: int
) -> dict[str, np.ndarray]:
    n_heads, n_kv_heads, head_dim = shape
    rng = np.random.default_rng(position + head_dim)
    max_tokens = max(n_tokens, 1)
    inv_freq = [10000.0 ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    cache = rng.normal(size=(2, n_kv_heads, context, head_dim)).astype(np.float16)
    # What lies past the chunk was never written: reading it would show as NaN.
    cache[:, :, position + n_tokens :] = np.nan
    everything = {
        "qkv": rng.normal(0, 2, (max_tokens, n_heads + 2 * n_kv_heads, head_dim)).astype(
            np.float32
        ),
        "q_norm": rng.normal(1, 0.5, head_dim).astype(np.float32),
        "k_norm": rng.normal(1, 0.5, head_dim).astype(np.float32),
        "rope": np.array(rope_table(inv_freq, context), np.float32),
        "state": np.array([position, n_tokens, 0, 0], np.uint32),
        "k_cache": cache[0],
        "v_cache": cache[1],
        "output": poisoned(max_tokens * n_heads * head_dim),
    }
    return {binding.name: everything[binding.name] for binding in spec.bindings}


def assert_same_caches(result: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for name in ("k_cache", "v_cache"):
        expected, found = (x.view(np.float16).astype(np.float32) for x in result[name])
        np.testing.assert_array_equal(np.isnan(expected), np.isnan(found))
        written = ~np.isnan(expected)
        np.testing.assert_allclose(found[written], expected[written], rtol=2**-10, atol=2**-12)


@pytest.mark.parametrize("eps", QK_NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("position", [0, 1, 62, 63, 64, 127, 200, 255])
def test_attention_decode(
    run_kernel: RunKernel, shape: tuple[int, int, int], position: int, eps: float | None
) -> None:
    heads = AttentionShape(*shape, 256, qk_norm_eps=eps)
    spec = attention_decode("attention under test", heads)
    inputs = inputs_for(spec, shape, 256, position, 1)
    result = expected_and_found(run_kernel, spec, inputs)
    assert_same_caches(result)
    assert_close(result["output"], TOLERANCE)


@pytest.mark.parametrize("eps", QK_NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("position", "n_tokens"), [(0, 1), (0, 64), (5, 3), (63, 65), (191, 9)])
def test_rope_append(
    run_kernel: RunKernel,
    shape: tuple[int, int, int],
    position: int,
    n_tokens: int,
    eps: float | None,
) -> None:
    spec = rope_append("rope under test", AttentionShape(*shape, 200, qk_norm_eps=eps), n_tokens)
    inputs = inputs_for(spec, shape, 200, position, n_tokens)
    result = expected_and_found(run_kernel, spec, inputs, n_tokens)
    assert_same_caches(result)
    assert_close(result["qkv"], 1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("position", "n_tokens"), [(0, 1), (0, 64), (5, 3), (63, 65), (191, 9)])
def test_attention_prefill(
    run_kernel: RunKernel, shape: tuple[int, int, int], position: int, n_tokens: int
) -> None:
    spec = attention_prefill("attention under test", AttentionShape(*shape, 200), n_tokens)
    inputs = inputs_for(spec, shape, 200, position, n_tokens)
    result = expected_and_found(run_kernel, spec, inputs, n_tokens)
    # Here both sides read the same halfs, so only f32 sums differ.
    assert_close(result["output"], 1e-5)
