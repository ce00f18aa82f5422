"""GEMV and GEMM against NumPy, in every weight format, epilogue and variant.

Tolerance 5e-6 of the largest output: sums of up to 4,864 f32 products in a few partial sums lose
about sqrt(n) * 2^-24, more where all outputs are small because their products cancel; the
reference sums in float64.
"""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.formats import WeightFormat
from py_engine.kernels.matmul import Epilogue, gemm, gemv
from tests.kernels.cases import (
    RunKernel,
    assert_close,
    expected_and_found,
    matrix_inputs,
    poisoned,
)

TOLERANCE = 5e-6
FORMATS = ("q4f16_1", "q4f32_1", "q0f16", "q0f32")
EPILOGUES = ("store", "residual", "swiglu", "bias", "bias_residual", "bias_gelu")

GEMV_SHAPES = [(64, 96, True), (6, 64, False), (2, 32, True), (1030, 256, True), (130, 4864, False)]
"""Rows, columns, with norm. Rows that are no multiple of a quad, columns from one block on."""

GEMM_SHAPES = [(66, 64, 7, 8), (130, 256, 64, 64), (2, 32, 1, 8), (64, 96, 33, 64)]
"""Rows, columns, tokens, room for tokens: on, one past and below the tile's border."""


def cases(shapes: list[tuple]) -> list[tuple]:
    """Return every format and epilogue on the first two shapes, and the others with one of each."""
    every = [(f, e, shape) for f in FORMATS for e in EPILOGUES for shape in shapes[:2]]
    return every + [("q4f16_1", e, shape) for e in ("store", "swiglu") for shape in shapes[2:]]


def output_before(
    rng: np.random.Generator, epilogue: str, n_tokens: int, rows: int, max_tokens: int
) -> np.ndarray:
    """Return the output's content before: poison, but a residual where there are tokens."""
    width = rows // 2 if epilogue == "swiglu" else rows
    output = poisoned(max_tokens * width)
    if "residual" in epilogue:
        output[: n_tokens * width] = (
            rng.normal(size=n_tokens * width).astype(np.float32).view(np.uint32)
        )
    return output


@pytest.mark.parametrize(("weight_format", "epilogue", "shape"), cases(GEMV_SHAPES))
def test_gemv(
    run_kernel: RunKernel,
    variant: int | None,
    weight_format: WeightFormat,
    epilogue: Epilogue,
    shape: tuple[int, int, bool],
) -> None:
    rows, columns, norm = shape
    rng = np.random.default_rng(rows * columns)
    spec = gemv(
        "gemv under test",
        weight_format,
        rows,
        columns,
        epilogue=epilogue,
        norm_eps=1e-5 if norm else None,
        lanes=variant,
    )
    inputs = matrix_inputs(rng, weight_format, rows, columns)
    inputs["x"] = rng.normal(size=columns).astype(np.float32)
    if norm:
        inputs["norm"] = rng.normal(1, 0.3, columns).astype(np.float32)
    if "bias" in epilogue:
        inputs["bias"] = rng.normal(size=rows).astype(np.float32)
    inputs["output"] = output_before(rng, epilogue, 1, rows, 1)
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], TOLERANCE)


@pytest.mark.parametrize(("weight_format", "epilogue", "shape"), cases(GEMM_SHAPES))
def test_gemm(
    run_kernel: RunKernel,
    variant: int | None,
    weight_format: WeightFormat,
    epilogue: Epilogue,
    shape: tuple[int, int, int, int],
) -> None:
    rows, columns, n_tokens, max_tokens = shape
    rng = np.random.default_rng(rows * columns + n_tokens)
    spec = gemm(
        "gemm under test",
        weight_format,
        rows,
        columns,
        max_tokens,
        epilogue=epilogue,
        lanes=variant,
    )
    inputs = matrix_inputs(rng, weight_format, rows, columns)
    inputs["x"] = rng.normal(size=(max_tokens, columns)).astype(np.float32)
    inputs["state"] = np.array([0, n_tokens, 0, 0], np.uint32)
    if "bias" in epilogue:
        inputs["bias"] = rng.normal(size=rows).astype(np.float32)
    inputs["output"] = output_before(rng, epilogue, n_tokens, rows, max_tokens)
    result = expected_and_found(run_kernel, spec, inputs, n_tokens)
    assert_close(result["output"], TOLERANCE)
