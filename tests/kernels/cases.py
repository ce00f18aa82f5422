"""Kernel test cases: builders of inputs, and the comparison with the NumPy reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.formats import BLOCK, MATRIX_FORMATS, GgufFormat, WeightFormat
from py_engine.kernels.reference import REFERENCES
from py_engine.kernels.reference_formats import packed_blocks
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
        if binding.access != "read_write":
            continue
        got = np.frombuffer(found[binding.name], np.uint8).copy()
        untouched = expected[binding.name].view(np.uint32) == POISON
        np.testing.assert_array_equal(
            got.view(np.uint32) == POISON, untouched, f"{binding.name}: written or left wrongly"
        )
        results[binding.name] = (views[binding.name], binding_view(binding, got))
    return results


def away_from_ties(x: Array, weight: Array | float = 1.0) -> Array:
    """Return x f32 so that x * weight is not nearly between two codes where it is rounded to int8.

    How a driver divides would decide which of them it gets.
    """
    blocks = (x * weight).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    is_near = np.abs(blocks / scale % 1 - 0.5) < 0.01
    moved: Array = x + (is_near * scale * 0.02).reshape(x.shape) / weight
    return moved.astype(np.float32)


def run_reference(
    spec: KernelSpec, buffers: Mapping[str, bytes], n_tokens: int
) -> dict[str, bytes]:
    """Run a kernel's NumPy reference as `run_kernel` runs the kernel."""
    data = {name: np.frombuffer(held, np.uint8).copy() for name, held in buffers.items()}
    views = {b.name: binding_view(b, data[b.name]) for b in spec.bindings}
    REFERENCES[spec.name](spec.constants, n_tokens, views)
    return {b.name: data[b.name].tobytes() for b in spec.bindings if b.access == "read_write"}


def assert_close(pair: tuple[Array, Array], tolerance: float) -> None:
    """Assert that the largest error, relative to the largest expected value, is small."""
    expected, found = (x[~np.isnan(x.astype(np.float64))].astype(np.float64) for x in pair)
    error = np.abs(expected - found).max() / np.abs(expected).max()
    assert error <= tolerance, f"relative error {error:.2e} exceeds {tolerance:.0e}"


_HALVES: dict[GgufFormat, tuple[int, ...]] = {
    "q4_0": (0,),
    "q4_1": (0, 2),
    "q5_0": (0,),
    "q5_1": (0, 2),
    "q8_0": (0,),
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q4_k": (0, 2),
    "q5_k": (0, 2),
    "q6_k": (208,),
}
"""Bytes of a GGUF block where its f16 scale and minimum stand."""


def gguf_blocks(
    rng: np.random.Generator,
    weight_format: GgufFormat,
    rows: int,
    columns: int,
    scale: float = 0.1,
) -> Array:
    """Return random blocks as they stand in a file, u8 (blocks, bytes), of scales up to `scale`."""
    form = MATRIX_FORMATS[weight_format]
    shape = (rows * form.row_blocks(columns), form.block_bytes or 0)
    blocks = rng.integers(0, 256, shape, dtype=np.uint8)
    for at in _HALVES[weight_format]:
        halves = rng.uniform(-scale, scale, (len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = halves.view(np.uint8)
    return blocks


def matrix_inputs(
    rng: np.random.Generator, weight_format: WeightFormat, rows: int, columns: int
) -> dict[str, Array]:
    """Return random buffers of a weight matrix in a format."""
    form = MATRIX_FORMATS[weight_format]
    if weight_format in _HALVES:
        return packed_blocks(weight_format, gguf_blocks(rng, weight_format, rows, columns))
    values = rng.normal(size=(rows, columns)).astype(np.float32)
    match weight_format:
        case "q0f32":
            return {"weights": values}
        case "q0f16":
            return {"weights": values.astype(np.float16)}
        case "q0bf16":
            return {"weights": (values.view(np.uint32) >> 16).astype(np.uint16)}
    groups = rows * form.row_blocks(columns)
    words = rng.integers(0, 1 << 32, (groups, form.block_words), dtype=np.uint32)
    scales = rng.uniform(0.01, 0.1, groups).astype(np.float32)
    if form.scale == "f32":
        return {"weights": words, "scales": scales}
    halves = scales.astype(np.float16)
    if form.scale == "f16":
        return {"weights": words, "scales": halves}
    zeros = rng.integers(0, 17, groups, dtype=np.uint32)
    return {"weights": words, "scales": halves.view(np.uint16) | (zeros << 16)}
