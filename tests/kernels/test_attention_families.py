"""What families add to attention: kernels against NumPy, and NumPy against the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.attention import attention_decode, attention_prefill, rope_append
from py_engine.kernels.attention_shape import (
    AttentionShape,
    QkNorm,
    QueryScaling,
    SlidingWindow,
)
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.kernels.attention_cases import (
    assert_same_caches,
    attend_in_steps,
    decode_runner,
    direct_attention,
    inputs_for,
    norm_weights,
)
from tests.kernels.cases import RunKernel, assert_close, expected_and_found, run_reference
from tests.kernels.conftest import SPLIT
from tests.kernels.test_attention import TOLERANCE

CHUNKS = [9, 0, 0, 1, 17, 0, 0, 0]
CONTEXT = 64
LOCAL = SlidingWindow.for_chunks(11, 0, max(CHUNKS))
SINKS = SlidingWindow.for_chunks(11, 3, max(CHUNKS))

FAMILIES = {
    "a rotated half": AttentionShape(4, 2, 32, CONTEXT, rotary_dim=16),
    "20 of 80 rotated": AttentionShape(4, 4, 80, CONTEXT, rotary_dim=20),
    "6 of 8 rotated": AttentionShape(2, 1, 8, CONTEXT, rotary_dim=6),
    "all of 8 but odd halves": AttentionShape(3, 3, 24, CONTEXT, rotary_dim=12),
    "nothing rotated": AttentionShape(4, 4, 16, CONTEXT, rotary_dim=0),
    "a scale": AttentionShape(4, 2, 32, CONTEXT, scale=0.4),
    "capped scores": AttentionShape(4, 2, 32, CONTEXT, scale=2.0, soft_cap=1.5),
    "Gemma 2": AttentionShape(4, 2, 256, CONTEXT, LOCAL, scale=0.05, soft_cap=50.0),
    "Gemma 3": AttentionShape(4, 1, 64, CONTEXT, LOCAL, QkNorm("head_rms", 0.1)),
    "OLMo 2": AttentionShape(6, 2, 24, CONTEXT, qk_norm=QkNorm("full_rms", 0.1)),
    "StableLM 2": AttentionShape(
        4, 2, 32, CONTEXT, qk_norm=QkNorm("head_layer", 0.1), rotary_dim=8
    ),
    "Ministral 3": AttentionShape(4, 2, 32, CONTEXT, query_scaling=QueryScaling(0.5, 7)),
    "Qwen 3.5": AttentionShape(
        4, 2, 64, CONTEXT, qk_norm=QkNorm("head_rms", 0.1), rotary_dim=16, gated=True
    ),
    "everything at once": AttentionShape(
        4,
        2,
        32,
        CONTEXT,
        LOCAL,
        QkNorm("full_rms", 0.1),
        rotary_dim=12,
        scale=1.0,
        soft_cap=3.0,
        query_scaling=QueryScaling(0.5, 7),
        gated=True,
    ),
}

WITH_SINKS = {
    "sinks, half rotated": AttentionShape(
        4, 2, 32, CONTEXT, SINKS, QkNorm("head_layer", 0.1), rotary_dim=16
    ),
    "sinks, odd halves": AttentionShape(
        4, 2, 32, CONTEXT, SINKS, QkNorm("full_rms", 0.1), rotary_dim=12, gated=True
    ),
    "sinks, nothing rotated": AttentionShape(4, 2, 32, CONTEXT, SINKS, rotary_dim=0, soft_cap=2.0),
}

PARTS = {
    f"heads from {part.first_cache_head} of a split cache": part
    for part in AttentionShape(
        12, 6, 32, CONTEXT, qk_norm=QkNorm("full_rms", 0.1), gated=True
    ).parts(2 * CONTEXT * 32 * 2)
}


@pytest.mark.parametrize("factor", [1.0, 1.3])
@pytest.mark.parametrize("tuning", [PLAIN, SPLIT], ids=["one workgroup", "split"])
@pytest.mark.parametrize("name", FAMILIES)
def test_references_equal_the_definitions(name: str, tuning: Tuning, factor: float) -> None:
    shape = FAMILIES[name]
    rng = np.random.default_rng(len(name))
    n_tokens = sum(chunk or 1 for chunk in CHUNKS)
    qkv = rng.normal(0.1, 1, (n_tokens, shape.qkv_heads, shape.head_dim)).astype(np.float32)
    norms = [norm_weights(rng, shape, heads) for heads in (shape.n_heads, shape.n_kv_heads)]
    found = attend_in_steps(
        run_reference, shape, qkv, CHUNKS, norms=norms, factor=factor, tuning=tuning
    )
    # The definitions know of no cache in f16.
    assert_close((direct_attention(shape, qkv, norms, factor), found), TOLERANCE)


@pytest.mark.parametrize("name", [*FAMILIES, *WITH_SINKS, *PARTS])
def test_kernels_equal_the_references(
    run_kernel: RunKernel, decode_tuning: Tuning, name: str
) -> None:
    shape = {**FAMILIES, **WITH_SINKS, **PARTS}[name]
    spec = attention_decode("decode under test", shape, decode_tuning.attention_threads)
    run = decode_runner(run_kernel, shape, decode_tuning)
    for position in (0, 40):
        result = expected_and_found(run, spec, inputs_for(spec, shape, position, 1, factor=1.3))
        assert_same_caches(result)
        assert_close(result["output"], TOLERANCE)


@pytest.mark.parametrize("name", [*FAMILIES, *WITH_SINKS, *PARTS])
def test_prefill_kernels_equal_the_references(
    run_kernel: RunKernel, prefill_tuning: Tuning, name: str
) -> None:
    shape = {**FAMILIES, **WITH_SINKS, **PARTS}[name]
    append = rope_append("append under test", shape, 20)
    attend = attention_prefill("prefill under test", shape, 20, prefill_tuning)
    for position in (0, 40):
        inputs = inputs_for(append, shape, position, 17, max_tokens=20, factor=1.3)
        assert_same_caches(expected_and_found(run_kernel, append, inputs, 17))
        inputs = inputs_for(attend, shape, position, 17, max_tokens=20, factor=1.3)
        assert_close(expected_and_found(run_kernel, attend, inputs, 17)["output"], 2e-5)


def test_a_cache_has_as_many_slots_as_its_buffer(
    run_kernel: RunKernel, decode_tuning: Tuning
) -> None:
    """One pipeline runs over a small buffer, and over a large one that begins like it."""
    shape = AttentionShape(4, 2, 16, 10_000)
    assert shape.grows
    spec = attention_decode("decode under test", shape, decode_tuning.attention_threads)
    run = decode_runner(run_kernel, shape, decode_tuning)
    for slots in (41, 64, 100):
        result = expected_and_found(run, spec, inputs_for(spec, shape, 40, 1, slots=slots))
        assert_same_caches(result)
        assert_close(result["output"], TOLERANCE)


def test_a_cache_is_split_into_as_few_parts_as_fit() -> None:
    shape = AttentionShape(24, 12, 64, 1000)
    head = 2 * 1000 * 64
    assert shape.parts(12 * head) == (shape,)
    for most, n_parts in ((11, 2), (6, 2), (5, 3), (3, 4), (2, 6), (1, 12), (0.5, 12)):
        parts = shape.parts(int(most * head))
        heads = [
            head
            for part in parts
            for head in range(part.first_cache_head, part.first_cache_head + part.heads_in_cache)
        ]
        assert len(parts) == n_parts
        assert heads == list(range(12))
        assert {part.cache_bytes for part in parts} == {shape.cache_bytes // n_parts}
