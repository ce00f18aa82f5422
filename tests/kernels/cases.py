"""Kernel test cases: builders of inputs, and the comparison with the NumPy reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.reference import REFERENCES
from tests.support.numpy_device import binding_view

Array = np.ndarray[Any, Any]
RunKernel = Callable[[KernelSpec, Mapping[str, bytes], int], dict[str, bytes]]

POISON = 0x7FC0DEAD
"""A NaN that no kernel computes: what nobody wrote still holds it."""

GUARD_WORDS = 8
"""Poisoned words behind every buffer, which no kernel may touch."""


def padded(array: Array) -> bytes:
    """Return an array's bytes with a poisoned guard behind them, 16-byte aligned."""
    words = np.frombuffer(
        np.ascontiguousarray(array).tobytes().ljust(-(-array.nbytes // 4) * 4, b"\0"), np.uint32
    )
    size = -(-(len(words) + GUARD_WORDS) // 4) * 4
    return np.concatenate([words, np.full(size - len(words), POISON, np.uint32)]).tobytes()


def poisoned(n_words: int) -> Array:
    """Return words that hold only poison: an output before the kernel runs."""
    return np.full(n_words, POISON, np.uint32)


def expected_and_found(
    run_kernel: RunKernel, spec: KernelSpec, inputs: Mapping[str, Array], n_tokens: int = 1
) -> dict[str, tuple[Array, Array]]:
    """Run a kernel and its reference on the same bytes; return every written buffer of both.

    Fails when a guard was touched or when an element that the reference leaves alone was written
    (or the reverse).
    """
    before = {name: padded(array) for name, array in inputs.items()}
    found = run_kernel(spec, before, n_tokens)
    expected = {name: np.frombuffer(data, np.uint8).copy() for name, data in before.items()}
    views = {b.name: binding_view(b, expected[b.name]) for b in spec.bindings}
    REFERENCES[spec.name](spec.constants, n_tokens, views)
    results = {}
    for binding in spec.bindings:
        if binding.access == "read":
            continue
        got = np.frombuffer(found[binding.name], np.uint8).copy()
        untouched = expected[binding.name].view(np.uint32) == POISON
        np.testing.assert_array_equal(
            got.view(np.uint32) == POISON, untouched, f"{binding.name}: written or left wrongly"
        )
        results[binding.name] = (views[binding.name], binding_view(binding, got))
    return results


def assert_close(pair: tuple[Array, Array], tolerance: float) -> None:
    """Assert that the largest error, relative to the largest expected value, is small."""
    expected, found = (x[~np.isnan(x.astype(np.float64))].astype(np.float64) for x in pair)
    error = np.abs(expected - found).max() / np.abs(expected).max()
    assert error <= tolerance, f"relative error {error:.2e} exceeds {tolerance:.0e}"


def matrix_inputs(
    rng: np.random.Generator, weight_format: str, rows: int, columns: int
) -> dict[str, Array]:
    """Return random buffers of a weight matrix in a format."""
    if weight_format == "q0f32":
        return {"weights": rng.normal(size=(rows, columns)).astype(np.float32)}
    if weight_format == "q0f16":
        return {"weights": rng.normal(size=(rows, columns)).astype(np.float16)}
    words = rng.integers(0, 1 << 32, (rows, columns // 8), dtype=np.uint32)
    kind = np.float16 if weight_format == "q4f16_1" else np.float32
    return {
        "weights": words,
        "scales": rng.uniform(0.01, 0.1, (rows, columns // 32)).astype(kind),
    }
