"""Products with x in 8 bits: how far they are from those in f32, and what has none.

That every form gives what its NumPy reference does, which rounds in the same way, is tested with
the other forms (`test_matmul.py`, `test_gemv_batch.py`).
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.formats import BLOCK, WeightFormat
from py_engine.kernels.forms import GemmTile, GemvForm, GemvForms
from py_engine.kernels.gemm import gemm
from py_engine.kernels.gemv import gemv
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import has_codes
from py_engine.kernels.reference import rounded_to_int8
from py_engine.kernels.tuning import Tuning
from tests.kernels.cases import RunKernel, expected_and_found, matrix_inputs, poisoned
from tests.kernels.conftest import INT8_WITHOUT_SUBGROUPS

STAGED = GemvForm(2, 16, staged=True, int8=True)
TILE = GemmTile(64, 64, 64, "int8")
ROWS, COLUMNS = 66, 512
CODES = [name for name in get_args(WeightFormat) if has_codes(name)]


def is_int8(spec: KernelSpec) -> bool:
    return "dot4I8Packed" in spec.source and spec.constants["activation_dtype"] == "int8"


def with_form(form: GemvForm, lanes: int | None = 4) -> Tuning:
    return Tuning(lanes, gemv=GemvForms.only(form), masks_codes=True)


@pytest.mark.parametrize("weight_format", CODES)
def test_rounding_is_all_that_differs(run_kernel: RunKernel, weight_format: WeightFormat) -> None:
    """0.3 % of the largest output with one scale a block: `docs/performance.md`."""
    rng = np.random.default_rng(5)
    inputs = matrix_inputs(rng, weight_format, ROWS, COLUMNS)
    inputs |= {"x": rng.normal(size=COLUMNS).astype(np.float32), "output": poisoned(ROWS)}
    found = [
        expected_and_found(
            run_kernel, gemv("under test", weight_format, ROWS, COLUMNS, tuning=tuning), inputs
        )["output"][1].view(np.float32)
        for tuning in (Tuning(), INT8_WITHOUT_SUBGROUPS)
    ]
    error = np.abs(found[0] - found[1]).max() / np.abs(found[0]).max()
    assert 1e-4 < error < 1e-2


def test_blocks_of_zeros_and_of_very_different_sizes(run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(6)
    inputs = matrix_inputs(rng, "q4f16_1", ROWS, 4 * BLOCK)
    x = rng.normal(size=(4, BLOCK)) * np.array([[0], [1e-36], [1e-3], [1e4]])
    inputs |= {"x": x.astype(np.float32), "output": poisoned(ROWS)}
    spec = gemv("under test", "q4f16_1", ROWS, 4 * BLOCK, tuning=INT8_WITHOUT_SUBGROUPS)
    expected, found = expected_and_found(run_kernel, spec, inputs)["output"]
    np.testing.assert_allclose(found.view(np.float32), expected.view(np.float32), rtol=1e-3)


def test_the_reference_rounds_to_codes() -> None:
    x = np.random.default_rng(7).normal(size=(3, 2 * BLOCK)).astype(np.float32)
    scales = np.abs(x.reshape(3, 2, BLOCK)).max(axis=2, keepdims=True) / 127
    codes = rounded_to_int8(x).reshape(3, 2, BLOCK) / scales
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)
    np.testing.assert_array_less(np.abs(codes - x.reshape(3, 2, BLOCK) / scales), 0.501)
    assert not rounded_to_int8(np.zeros((1, BLOCK), np.float32)).any()


@pytest.mark.parametrize("weight_format", get_args(WeightFormat))
def test_formats_of_codes_have_it_and_others_stay_in_f32(weight_format: WeightFormat) -> None:
    forms = (STAGED, GemvForm(16, 8, int8=True), GemvForm(4, 64, int8=True))
    tunings = [with_form(form, lanes) for form in forms for lanes in (4, None)]
    specs = [gemv("under test", weight_format, 64, 512, tuning=t) for t in tunings]
    specs += [gemv("under test", weight_format, 64, 512, batch=4, tuning=t) for t in tunings]
    tile = Tuning(gemm_tiles=((0, TILE),))
    specs.append(gemm("under test", weight_format, 64, 512, 8, tuning=tile))
    assert {is_int8(spec) for spec in specs} == {has_codes(weight_format)}
    assert not any("OF_ODD" in spec.source for spec in specs if is_int8(spec))


def test_where_a_team_cannot_be_the_plain_form_has_it() -> None:
    def is_team(norm: Norm | None = None, columns: int = 512) -> bool:
        spec = gemv("under test", "q4f16_1", 64, columns, norm=norm, tuning=with_form(STAGED))
        assert is_int8(spec)
        return "LANES" in spec.constants

    assert is_team() and is_team(Norm("rms", 1e-5))
    assert not is_team(Norm("layer", 1e-5))
    # 16 KiB of workgroup memory hold 40 bytes a block.
    assert is_team(columns=409 * BLOCK - BLOCK) and not is_team(columns=410 * BLOCK)
