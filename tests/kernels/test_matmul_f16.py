"""Products of a chunk in f16, on whatever adapter of this machine computes in it.

SwiftShader does not. A GPU does (`--adapter hardware`), and so does Mesa's llvmpipe by way of the
package `wgpu` (`tests/support/naga.py`). Where there is neither, only what needs no adapter is
tested.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from py_engine.kernels.formats import BLOCK, WeightFormat
from py_engine.kernels.forms import GemmTile
from py_engine.kernels.gemm import gemm
from py_engine.kernels.reference import rounded_to_f16
from py_engine.kernels.tuning import Tuning
from tests.conftest import EngineWorker
from tests.kernels.cases import RunKernel, expected_and_found, matrix_inputs, poisoned
from tests.kernels.test_matmul import (
    EPILOGUES,
    F16_TILES,
    FORMATS,
    GEMM_SHAPES,
    STORE,
    SWIGLU,
    by_tile,
    check_gemm,
    check_gemm_of_a_part,
)
from tests.support.naga import kernel_runner

TILE = by_tile(F16_TILES[0])
TOLERANCE = 3e-3
"""Eight products are added up in f16; twice that for a gate times its up."""


async def _has_f16() -> bool:
    from py_engine.gpu.adapter import request_device

    return (await request_device()).info.has_f16


@pytest.fixture(scope="module")
def run_in_f16(engine_worker: EngineWorker, run_kernel: RunKernel) -> RunKernel:
    """Dispatch a kernel that computes in f16."""
    if engine_worker.run(_has_f16):
        return run_kernel
    run = kernel_runner("shader-f16")
    if run is None:
        pytest.skip("no adapter here computes in f16")
    return run


@pytest.mark.parametrize("shape", GEMM_SHAPES)
@pytest.mark.parametrize("name", ["bias gated gelu_tanh", "store"])
def test_gemm(run_in_f16: RunKernel, name: str, shape: tuple[int, int, int, int]) -> None:
    check_gemm(run_in_f16, "q4f16_1", EPILOGUES[name], shape, TILE, TOLERANCE)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_gemm_of_every_format(run_in_f16: RunKernel, weight_format: WeightFormat) -> None:
    check_gemm(run_in_f16, weight_format, STORE, GEMM_SHAPES[0], TILE, TOLERANCE)


@pytest.mark.parametrize("tile", F16_TILES, ids=str)
def test_gemm_by_several_tiles(run_in_f16: RunKernel, tile: GemmTile) -> None:
    check_gemm(run_in_f16, "q4f16_1", SWIGLU, (266, 96, 145, 200), by_tile(tile), TOLERANCE)


@pytest.mark.parametrize("gated", [False, True])
def test_gemm_of_a_part(run_in_f16: RunKernel, gated: bool) -> None:
    check_gemm_of_a_part(run_in_f16, gated, TILE, TOLERANCE)


def test_tokens_of_very_different_sizes(run_in_f16: RunKernel) -> None:
    """What f16 cannot hold, or only with few digits, is relative to the largest of its block."""
    rows, columns, sizes = 66, 2 * BLOCK, np.array([0, 1e-20, 1e-6, 1, 1e6, 1e20])
    rng = np.random.default_rng(8)
    inputs = matrix_inputs(rng, "q4f16_1", rows, columns)
    x = rng.normal(size=(len(sizes), columns)) * sizes[:, None]
    state = np.array([0, len(sizes), 0, 0], np.uint32)
    inputs |= {"x": x.astype(np.float32), "state": state, "output": poisoned(len(sizes) * rows)}
    spec = gemm("under test", "q4f16_1", rows, columns, len(sizes), tuning=TILE)
    expected, found = (
        each.view(np.float32).reshape(len(sizes), rows)
        for each in expected_and_found(run_in_f16, spec, inputs, len(sizes))["output"]
    )
    for right, row in zip(expected, found, strict=True):
        np.testing.assert_allclose(row, right, atol=TOLERANCE * np.abs(right).max())


def test_the_reference_rounds_relative_to_the_largest() -> None:
    x = np.random.default_rng(7).normal(size=(3, 2 * BLOCK)).astype(np.float32)
    x[1, 0] = 1e30
    blocks = x.reshape(3, 2, BLOCK)
    error = np.abs(rounded_to_f16(x).reshape(blocks.shape) - blocks)
    assert 0 < (error / np.abs(blocks).max(axis=2, keepdims=True)).max() <= 2**-11
    assert not rounded_to_f16(np.zeros((1, BLOCK), np.float32)).any()


@pytest.mark.parametrize("weight_format", get_args(WeightFormat))
def test_only_tiles_of_f16_need_the_feature(weight_format: WeightFormat) -> None:
    def needs_f16(tuning: Tuning) -> bool:
        spec = gemm("under test", weight_format, 64, 512, 8, tuning=tuning)
        assert (spec.constants["activation_dtype"] == "float16") is ("vec4h" in spec.source)
        return spec.source.startswith("enable f16;")

    assert needs_f16(TILE) and not needs_f16(by_tile(GemmTile())) and not needs_f16(Tuning(4))
