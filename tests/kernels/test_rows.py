"""Embedding gather, RMSNorm, last row and weight conversion against NumPy.

Copies and conversions must be exact. RMSNorm: 1e-6, a few f32 roundings.
"""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.convert import convert_spec
from py_engine.kernels.rows import embed, last_row, rms_norm
from tests.kernels.cases import (
    RunKernel,
    assert_close,
    expected_and_found,
    matrix_inputs,
    poisoned,
)


@pytest.mark.parametrize("weight_format", ["q4f16_1", "q4f32_1", "q0f16", "q0f32"])
@pytest.mark.parametrize(("vocabulary", "hidden"), [(5, 32), (203, 96), (67, 320)])
def test_embed_chunk(
    run_kernel: RunKernel, weight_format: str, vocabulary: int, hidden: int
) -> None:
    rng = np.random.default_rng(vocabulary)
    spec = embed("embed under test", weight_format, vocabulary, hidden, max_tokens=9)
    inputs = matrix_inputs(rng, weight_format, vocabulary, hidden)
    inputs["tokens"] = rng.integers(0, vocabulary, 9).astype(np.uint32)
    inputs["tokens"][:3] = [0, vocabulary - 1, vocabulary + 7]
    inputs["output"] = poisoned(9 * hidden)
    assert_close(expected_and_found(run_kernel, spec, inputs, 7)["output"], 1e-7)


def test_embed_adds_to_what_is_there(run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(2)
    spec = embed("embed under test", "q4f16_1", 203, 64, max_tokens=9, add=True)
    inputs = matrix_inputs(rng, "q4f16_1", 203, 64)
    inputs["tokens"] = rng.integers(0, 203, 9).astype(np.uint32)
    inputs["output"] = rng.normal(size=(9, 64)).astype(np.float32)
    assert_close(expected_and_found(run_kernel, spec, inputs, 7)["output"], 1e-6)


def test_embed_last_drawn_token(run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(1)
    spec = embed("embed under test", "q4f16_1", 203, 64, from_state=True)
    inputs = matrix_inputs(rng, "q4f16_1", 203, 64)
    inputs["tokens"] = np.array([1, 2, 202, 3], np.uint32)
    inputs["output"] = poisoned(64)
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], 1e-7)


@pytest.mark.parametrize(("hidden", "n_tokens"), [(32, 1), (96, 3), (576, 17), (320, 33)])
def test_rms_norm(run_kernel: RunKernel, variant: int | None, hidden: int, n_tokens: int) -> None:
    rng = np.random.default_rng(hidden)
    spec = rms_norm("norm under test", hidden, 40, 1e-5, lanes=variant)
    inputs = {
        "x": rng.normal(0, 30, (40, hidden)).astype(np.float32),
        "norm": rng.normal(1, 0.3, hidden).astype(np.float32),
        "state": np.array([0, n_tokens, 0, 0], np.uint32),
        "output": poisoned(40 * hidden),
    }
    assert_close(expected_and_found(run_kernel, spec, inputs, n_tokens)["output"], 1e-6)


@pytest.mark.parametrize(("hidden", "n_tokens"), [(32, 1), (320, 5), (96, 8)])
def test_last_row(run_kernel: RunKernel, hidden: int, n_tokens: int) -> None:
    rng = np.random.default_rng(hidden)
    inputs = {
        "x": rng.normal(size=(8, hidden)).astype(np.float32),
        "state": np.array([4, n_tokens, 0, 0], np.uint32),
        "output": poisoned(hidden),
    }
    spec = last_row("last row under test", hidden, 8)
    expected, found = expected_and_found(run_kernel, spec, inputs, n_tokens)["output"]
    np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize("source", ["f16", "bf16"])
@pytest.mark.parametrize("n", [1, 2, 511, 513, 200_001])
def test_convert(run_kernel: RunKernel, source: str, n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(0, 10, n + n % 2).astype(np.float32)
    values[0] = -0.0
    halfs = values.astype(np.float16).view(np.uint16)
    bf16 = (values.view(np.uint32) >> 16).astype(np.uint16)
    spec = convert_spec(source, n)
    inputs = {"source": halfs if source == "f16" else bf16, "output": poisoned(n + n % 2)}
    expected, found = expected_and_found(run_kernel, spec, inputs)["output"]
    np.testing.assert_array_equal(expected.view(np.uint32), found.view(np.uint32))
