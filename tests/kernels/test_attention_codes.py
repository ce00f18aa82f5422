"""Attention over a KV cache in 8 bits: kernels against NumPy, and NumPy against the definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from py_engine.kernels.attention import attention_decode, attention_prefill, rope_append
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.kernels.attention_cases import (
    assert_same_codes,
    attend_in_steps,
    decode_runner,
    direct_attention,
    inputs_for,
    norm_weights,
)
from tests.kernels.cases import RunKernel, assert_close, expected_and_found, run_reference
from tests.kernels.conftest import SPLIT
from tests.kernels.test_attention import SHAPES, TOLERANCE
from tests.kernels.test_attention_families import CHUNKS, CONTEXT, FAMILIES, PARTS, WITH_SINKS

CODED = {
    name: replace(shape, cache_dtype="int8")
    for name, shape in {
        **{str(shape): AttentionShape(*shape, CONTEXT) for shape in SHAPES},
        **FAMILIES,
        **WITH_SINKS,
        **PARTS,
    }.items()
}

CODES_TOLERANCE = 2e-2
"""Against no cache at all: a code is within 1/254 of its head's largest element."""


@pytest.mark.parametrize("tuning", [PLAIN, SPLIT], ids=["one workgroup", "split"])
@pytest.mark.parametrize("name", FAMILIES)
def test_references_equal_the_definitions(name: str, tuning: Tuning) -> None:
    shape = CODED[name]
    rng = np.random.default_rng(len(name))
    n_tokens = sum(chunk or 1 for chunk in CHUNKS)
    qkv = rng.normal(0.1, 1, (n_tokens, shape.qkv_heads, shape.head_dim)).astype(np.float32)
    norms = [norm_weights(rng, shape, heads) for heads in (shape.n_heads, shape.n_kv_heads)]
    found = attend_in_steps(run_reference, shape, qkv, CHUNKS, norms=norms, tuning=tuning)
    assert_close((direct_attention(shape, qkv, norms), found), CODES_TOLERANCE)


@pytest.mark.parametrize("name", CODED)
def test_decode(run_kernel: RunKernel, decode_tuning: Tuning, name: str) -> None:
    shape = CODED[name]
    spec = attention_decode("decode under test", shape, decode_tuning.attention_threads)
    run = decode_runner(run_kernel, shape, decode_tuning)
    for position in (0, 40, 63):
        result = expected_and_found(run, spec, inputs_for(spec, shape, position, 1))
        assert_same_codes(shape, result)
        assert_close(result["output"], 3 * TOLERANCE)


@pytest.mark.parametrize("name", CODED)
def test_prefill(run_kernel: RunKernel, prefill_tuning: Tuning, name: str) -> None:
    shape = CODED[name]
    append = rope_append("append under test", shape, 20)
    attend = attention_prefill("attention under test", shape, 20, prefill_tuning)
    for position, n_tokens in ((0, 1), (40, 17)):
        inputs = inputs_for(append, shape, position, n_tokens, max_tokens=20)
        assert_same_codes(shape, expected_and_found(run_kernel, append, inputs, n_tokens))
        inputs = inputs_for(attend, shape, position, n_tokens, max_tokens=20)
        result = expected_and_found(run_kernel, attend, inputs, n_tokens)
        assert_close(result["output"], 1e-5)  # both sides read the same codes


def test_a_head_of_zeros_is_kept_as_zeros(run_kernel: RunKernel) -> None:
    shape = CODED[str(SHAPES[1])]
    spec = rope_append("append under test", shape, 3)
    inputs = inputs_for(spec, shape, 5, 3)
    inputs["qkv"][1] = 0
    result = expected_and_found(run_kernel, spec, inputs, 3)
    assert_same_codes(shape, result)
    rows = result["k_cache"][1].view(np.int8).reshape(shape.slots, -1)
    assert not rows[6].any() and rows[5].any()


def test_a_cache_of_codes_is_little_more_than_half() -> None:
    halfs = AttentionShape(32, 8, 128, 4096)
    assert replace(halfs, cache_dtype="int8").cache_bytes == halfs.cache_bytes * 132 // 256
