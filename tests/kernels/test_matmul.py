"""GEMV and GEMM against NumPy, in every weight format, epilogue, norm and variant.

Tolerance 5e-6 of the largest output: sums of up to 4,864 f32 products in a few partial sums lose
about sqrt(n) * 2^-24, more where all outputs are small because their products cancel; the
reference sums in float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels import gemv as gemv_module
from py_engine.kernels.formats import WeightFormat
from py_engine.kernels.forms import GemmTile, GemvForm, GemvForms
from py_engine.kernels.gemm import gemm
from py_engine.kernels.gemv import gemv
from py_engine.kernels.gemv_forms import folds_branch
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import Epilogue, has_codes
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.kernels.cases import (
    RunKernel,
    assert_close,
    away_from_ties,
    expected_and_found,
    matrix_inputs,
    poisoned,
)
from tests.kernels.conftest import GEMV_FORMS, SHARING_FORMS, one_form, sampled, scaled

TOLERANCE = 5e-6
FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)
STORE = Epilogue()
SWIGLU = Epilogue(activation="silu", gated=True)
EPILOGUES = {
    "store": STORE,
    "residual": Epilogue(residual=True),
    "swiglu": SWIGLU,
    "bias": Epilogue(bias=True),
    "bias residual": Epilogue(bias=True, residual=True),
    "bias gelu": Epilogue(bias=True, activation="gelu"),
    "bias gelu_tanh": Epilogue(bias=True, activation="gelu_tanh"),
    "bias gated gelu_tanh": Epilogue(bias=True, activation="gelu_tanh", gated=True),
    "soft cap": Epilogue(soft_cap=30.0),
}
NORMS = {
    "rms": Norm("rms", 1e-5),
    "layer": Norm("layer", 1e-5),
    "layer bias": Norm("layer", 1e-5, bias=True),
}

BRANCH_NORM = Norm("rms", 0.25)
"""Behind a branch, with an epsilon that shows."""

GEMV_SHAPES = [(66, 256), (6, 512), (2, 256), (1030, 256), (130, 4864)]
"""Rows, columns. Rows that are no multiple of a quad, columns of any whole number of blocks."""

GPU_TILES = [
    GemmTile(*sizes) for sizes in ((64, 64, 32), (128, 64, 16), (64, 128, 16), (128, 128, 16))
]
F16_TILES = [GemmTile(*s, "float16") for s in ((64, 64, 32), (128, 64, 32), (64, 48, 64))]
INT8_TILES = [GemmTile(*s, "int8") for s in ((64, 64, 64), (128, 64, 64), (64, 64, 32))]

GEMM_SHAPES = [(66, 256, 7, 8), (10, 512, 1, 8), (130, 256, 64, 64), (64, 768, 33, 64)]
"""Rows, columns, tokens, room for tokens: on, one past and below the tile's border."""


def cases(shapes: list[tuple[int, ...]]) -> list[tuple[str, tuple[int, ...]]]:
    """Return every epilogue on one of the first two shapes, and two of them on the others."""
    every = [(name, shapes[i % 2]) for i, name in enumerate(EPILOGUES)]
    return every + [(name, shape) for name in ("store", "swiglu") for shape in shapes[2:]]


def output_before(
    rng: np.random.Generator, epilogue: Epilogue, n_tokens: int, width: int, max_tokens: int
) -> np.ndarray:
    """Return the output's content before: poison, but a residual where there are tokens."""
    output = poisoned(max_tokens * width)
    if epilogue.residual:
        rows = rng.normal(size=n_tokens * width).astype(np.float32)
        output[: n_tokens * width] = rows.view(np.uint32)
    return output


def bias_inputs(
    rng: np.random.Generator, epilogue: Epilogue, n_outputs: int
) -> dict[str, np.ndarray]:
    """Return the bias of a whole matrix, where the epilogue has one."""
    n_biases = n_outputs * (2 if epilogue.gated else 1)
    return {"bias": rng.normal(size=n_biases).astype(np.float32)} if epilogue.bias else {}


def norm_inputs(rng: np.random.Generator, norm: Norm, columns: int) -> dict[str, np.ndarray]:
    """Return a norm's weight, and its bias where it has one."""
    inputs = {"norm": rng.normal(1, 0.3, columns).astype(np.float32)}
    if norm.bias:
        inputs["norm_bias"] = rng.normal(0, 0.3, columns).astype(np.float32)
    return inputs


def branch_inputs(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return a branch's output and the weight of BRANCH_NORM behind it, then what it adds."""
    branch = rng.normal(1, 2, shape).astype(np.float32)
    weight = rng.normal(1, 0.3, shape[-1]).astype(np.float32)
    squares = np.mean(branch.astype(np.float64) ** 2, axis=-1, keepdims=True)
    added = branch / np.sqrt(squares + BRANCH_NORM.eps) * weight
    return {"branch": branch, "branch_norm": weight}, added


def norm_tolerance(spec: KernelSpec) -> float:
    """Return 2e-5, and room for a code where f32 may round what LayerNorm gives to the next one."""
    constants = spec.constants
    is_int8 = constants["norm"] == "layer" and constants["activation_dtype"] == "int8"
    return 3e-3 if is_int8 else 2e-5


def check_gemv(
    run_kernel: RunKernel,
    weight_format: WeightFormat,
    epilogue: Epilogue,
    shape: tuple[int, int],
    tuning: Tuning,
) -> None:
    rows, columns = shape
    rng = np.random.default_rng(rows * columns)
    width = rows // 2 if epilogue.gated else rows
    inputs = matrix_inputs(rng, weight_format, rows, columns)
    inputs["x"] = away_from_ties(rng.normal(size=columns))
    inputs |= bias_inputs(rng, epilogue, width)
    inputs["output"] = output_before(rng, epilogue, 1, width, 1)
    spec = gemv("gemv under test", weight_format, rows, columns, epilogue=epilogue, tuning=tuning)
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], TOLERANCE)


@pytest.mark.parametrize(("name", "shape"), cases(GEMV_SHAPES))
def test_gemv(
    run_kernel: RunKernel, gemv_tuning: Tuning, name: str, shape: tuple[int, int]
) -> None:
    check_gemv(run_kernel, "q4f16_1", EPILOGUES[name], shape, gemv_tuning)


def test_gemv_with_more_workgroups_than_a_dimension_has(
    run_kernel: RunKernel, gemv_tuning: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary of 262,144 needs 65,536 where a workgroup has four rows, one too many."""
    monkeypatch.setattr(gemv_module, "MAX_GROUPS", 5)
    check_gemv(run_kernel, "q4f16_1", STORE, GEMV_SHAPES[0], gemv_tuning)
    check_gemv(run_kernel, "q4f16_1", SWIGLU, GEMV_SHAPES[0], gemv_tuning)


@pytest.mark.parametrize("lanes", [None, 4, 32, 64, 128])
def test_grids_of_large_vocabularies_fit(lanes: int | None) -> None:
    for rows in (262144, 262208, 65535 * 4, 1 << 20):
        spec = gemv("lm_head", "q4f16_1", rows, 640, norm=Norm("rms", 1e-6), tuning=Tuning(lanes))
        width, height, _ = spec.workgroups()
        assert max(width, height) <= 65535
        rows_per_group = 4 * max(1, 64 // lanes) if lanes else 4
        assert rows <= width * height * rows_per_group < rows + height * rows_per_group


@pytest.mark.parametrize("weight_format", FORMATS)
def test_gemv_of_every_format(
    run_kernel: RunKernel, lanes: int | None, weight_format: WeightFormat
) -> None:
    check_gemv(run_kernel, weight_format, STORE, GEMV_SHAPES[0], Tuning(lanes))


@pytest.mark.sampled
@pytest.mark.parametrize("form", GEMV_FORMS)
@pytest.mark.parametrize("weight_format", [name for name in FORMATS if name.startswith("q4")])
def test_gemv_of_every_format_of_codes(
    run_kernel: RunKernel, lanes: int | None, weight_format: WeightFormat, form: str
) -> None:
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    tuning = one_form(lanes, scaled(GEMV_FORMS[form], lanes))
    check_gemv(run_kernel, weight_format, STORE, GEMV_SHAPES[0], tuning)


@pytest.mark.parametrize("weight_format", ["q4f16_1", "q4f32_1", "q4g32", "q4g128"])
def test_masked_codes_give_the_same_bits(
    run_kernel: RunKernel, lanes: int | None, weight_format: WeightFormat
) -> None:
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    rng = np.random.default_rng(1)
    inputs = matrix_inputs(rng, weight_format, 70, 512)
    x = rng.normal(size=(6, 512)).astype(np.float32)
    state = {"state": np.array([0, 6, 0, 0], np.uint32)}
    found: dict[bool, list[bytes]] = {}
    for masks in (False, True):
        form = replace(
            one_form(lanes, scaled(GEMV_FORMS["many rows"], lanes)), masks_codes=masks, gemm_quads=2
        )
        one = gemv("gemv under test", weight_format, 70, 512, tuning=form)
        many = gemm("gemm under test", weight_format, 70, 512, 6, tuning=form)
        assert ("OF_ODD" in one.source) == ("OF_ODD" in many.source) == masks
        runs = (
            (one, inputs | {"x": x[0], "output": poisoned(70)}),
            (many, inputs | {"x": x, "output": poisoned(6 * 70)} | state),
        )
        found[masks] = [
            expected_and_found(run_kernel, spec, given, 6)["output"][1].tobytes()
            for spec, given in runs
        ]
    assert found[True] == found[False]


def test_forms_of_gemv_apply_where_they_can() -> None:
    def is_team(norm: Norm | None = None, fmt: WeightFormat = "q4f16_1", columns: int = 64) -> bool:
        tuning = one_form(4, GEMV_FORMS["four rows, staged"])
        return "R" in gemv("under test", fmt, 64, columns, norm=norm, tuning=tuning).constants

    assert is_team() and is_team(NORMS["rms"]) and is_team(fmt="q4g32")
    assert not is_team(NORMS["layer"])
    assert not is_team(fmt="q3f16_1")
    assert is_team(columns=7680) and not is_team(columns=8192)


def test_a_matrix_gets_the_form_of_its_shape() -> None:
    wide, narrow, deep = (GemvForm(4, size) for size in (32, 64, 128))
    forms = GemvForms(wide, narrow, deep, wide_rows=4096, deep_ratio=3)
    assert forms.choose(16384, 2048) is wide
    assert forms.choose(4096, 14336) is deep
    assert forms.choose(2048, 2048) is narrow


@pytest.mark.parametrize("columns", [32, 96, 1056])
@pytest.mark.parametrize("kind", NORMS)
def test_gemv_folds_a_norm(
    run_kernel: RunKernel, gemv_tuning: Tuning, kind: str, columns: int
) -> None:
    norm = NORMS[kind]
    rng = np.random.default_rng(columns)
    inputs = matrix_inputs(rng, "q4f16_1", 6, columns)
    # Far from 0, where a variance from a difference of squares would lose all its digits.
    x = rng.normal(40, 3, columns)
    inputs |= norm_inputs(rng, norm, columns)
    inputs["x"] = away_from_ties(x, inputs["norm"])
    inputs["output"] = poisoned(6)
    spec = gemv("gemv under test", "q4f16_1", 6, columns, norm=norm, tuning=gemv_tuning)
    found = expected_and_found(run_kernel, spec, inputs)
    assert_close(found["output"], norm_tolerance(spec))


@pytest.mark.parametrize(("kind", "columns"), [("rms", 1056), (None, 96)])
@pytest.mark.parametrize("form", sampled(SHARING_FORMS))
def test_gemv_folds_what_a_branch_adds(
    run_kernel: RunKernel, lanes: int | None, form: str, kind: str | None, columns: int
) -> None:
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    norm = None if kind is None else NORMS[kind]
    rng = np.random.default_rng(columns)
    inputs = matrix_inputs(rng, "q4f16_1", 66, columns)
    of_branch, added = branch_inputs(rng, (columns,))
    inputs |= of_branch
    if norm is not None:
        inputs |= norm_inputs(rng, norm, columns)
    whole = away_from_ties(rng.normal(5, 3, columns) + added, inputs.get("norm", 1.0))
    inputs["x"] = (whole - added).astype(np.float32)
    inputs["output"] = poisoned(33)
    spec = gemv(
        "gemv under test",
        "q4f16_1",
        66,
        columns,
        epilogue=SWIGLU,
        norm=norm,
        branch_norm=BRANCH_NORM,
        tuning=one_form(lanes, scaled(GEMV_FORMS[form], lanes)),
    )
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], 2e-5)


def test_forms_that_share_x_fold_what_a_branch_adds() -> None:
    def folds(norm: Norm = BRANCH_NORM, fmt: WeightFormat = "q4f16_1", batch: int = 1) -> set[str]:
        return {
            name
            for name, form in GEMV_FORMS.items()
            if folds_branch(fmt, 66, 256, norm, one_form(4, form), batch)
        }

    assert folds() == set(SHARING_FORMS)
    quads = {"many rows", "int8, many rows"}
    assert folds(batch=4) == folds(fmt="q6_k") == quads
    assert folds(NORMS["layer"]) == set()
    for tuning in (PLAIN, Tuning(4), one_form(None, GEMV_FORMS["many rows"])):
        assert not folds_branch("q4f16_1", 66, 256, BRANCH_NORM, tuning)
    # Nor where x does not fit into workgroup memory.
    staged = one_form(4, GEMV_FORMS["four rows, staged"])
    assert not folds_branch("q4f16_1", 66, 8192, BRANCH_NORM, staged)


@pytest.mark.parametrize("gated", [False, True])
def test_gemv_of_a_part_writes_into_its_place(
    run_kernel: RunKernel, gemv_tuning: Tuning, gated: bool
) -> None:
    epilogue = Epilogue(bias=True, activation="silu", gated=gated)
    rng = np.random.default_rng(gated)
    inputs = matrix_inputs(rng, "q4f16_1", 10, 96)
    inputs["x"] = away_from_ties(rng.normal(size=96))
    inputs |= bias_inputs(rng, epilogue, 31)
    inputs["output"] = poisoned(31)
    spec = gemv(
        "gemv under test",
        "q4f16_1",
        10,
        96,
        epilogue=epilogue,
        first_output=7,
        n_outputs=31,
        tuning=gemv_tuning,
    )
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], TOLERANCE)


def check_gemm(
    run_kernel: RunKernel,
    weight_format: WeightFormat,
    epilogue: Epilogue,
    shape: tuple[int, int, int, int],
    tuning: Tuning,
    tolerance: float = TOLERANCE,
) -> None:
    rows, columns, n_tokens, max_tokens = shape
    rng = np.random.default_rng(rows * columns + n_tokens)
    width = rows // 2 if epilogue.gated else rows
    inputs = matrix_inputs(rng, weight_format, rows, columns)
    inputs["x"] = away_from_ties(rng.normal(size=(max_tokens, columns)))
    inputs["state"] = np.array([0, n_tokens, 0, 0], np.uint32)
    inputs |= bias_inputs(rng, epilogue, width)
    inputs["output"] = output_before(rng, epilogue, n_tokens, width, max_tokens)
    spec = gemm(
        "gemm under test",
        weight_format,
        rows,
        columns,
        max_tokens,
        epilogue=epilogue,
        tuning=tuning,
    )
    result = expected_and_found(run_kernel, spec, inputs, n_tokens)
    assert_close(result["output"], tolerance)


@pytest.mark.parametrize(("name", "shape"), cases(GEMM_SHAPES))
def test_gemm(
    run_kernel: RunKernel, lanes: int | None, name: str, shape: tuple[int, int, int, int]
) -> None:
    check_gemm(run_kernel, "q4f16_1", EPILOGUES[name], shape, Tuning(lanes))


@pytest.mark.parametrize("weight_format", FORMATS)
def test_gemm_of_every_format(
    run_kernel: RunKernel, lanes: int | None, weight_format: WeightFormat
) -> None:
    check_gemm(run_kernel, weight_format, STORE, GEMM_SHAPES[0], Tuning(lanes))


@pytest.mark.parametrize("shape", GEMM_SHAPES)
def test_gemm_by_tiles(run_kernel: RunKernel, shape: tuple[int, int, int, int]) -> None:
    check_gemm(run_kernel, "q4f16_1", EPILOGUES["bias gated gelu_tanh"], shape, PLAIN)


@pytest.mark.parametrize("weight_format", ["q0f32", "q3f16_1", "q6_k"])
def test_gemm_by_tiles_of_other_formats(run_kernel: RunKernel, weight_format: WeightFormat) -> None:
    check_gemm(run_kernel, weight_format, STORE, GEMM_SHAPES[0], PLAIN)


def by_tile(tile: GemmTile) -> Tuning:
    """Return what gives every matrix a tile."""
    return Tuning(gemm_tiles=((0, tile),))


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "shape"), cases(GEMM_SHAPES))
def test_gemm_by_gpu_tiles(
    run_kernel: RunKernel, name: str, shape: tuple[int, int, int, int]
) -> None:
    check_gemm(run_kernel, "q4f16_1", EPILOGUES[name], shape, by_tile(GPU_TILES[0]))


@pytest.mark.sampled
@pytest.mark.parametrize("weight_format", FORMATS)
def test_gemm_by_gpu_tiles_of_every_format(
    run_kernel: RunKernel, weight_format: WeightFormat
) -> None:
    check_gemm(run_kernel, weight_format, STORE, GEMM_SHAPES[0], by_tile(GPU_TILES[0]))


@pytest.mark.sampled
@pytest.mark.parametrize("shape", GEMM_SHAPES)
def test_gemm_by_int8_tiles(run_kernel: RunKernel, shape: tuple[int, int, int, int]) -> None:
    epilogue = EPILOGUES["bias gated gelu_tanh"]
    check_gemm(run_kernel, "q4f16_1", epilogue, shape, by_tile(INT8_TILES[0]))


@pytest.mark.sampled
@pytest.mark.parametrize("weight_format", [name for name in FORMATS if has_codes(name)])
def test_gemm_by_int8_tiles_of_every_format(
    run_kernel: RunKernel, weight_format: WeightFormat
) -> None:
    check_gemm(run_kernel, weight_format, STORE, GEMM_SHAPES[0], by_tile(INT8_TILES[0]))


@pytest.mark.sampled
@pytest.mark.parametrize("tile", [*GPU_TILES, *INT8_TILES], ids=str)
def test_gemm_by_several_gpu_tiles(run_kernel: RunKernel, tile: GemmTile) -> None:
    """A tile and a part of one in both directions, gated: gates and ups of a quad lie apart."""
    check_gemm(run_kernel, "q4f16_1", SWIGLU, (266, 96, 145, 200), by_tile(tile))


def test_gpu_tiles_fit_into_the_memory_that_every_adapter_has() -> None:
    bytes_of_column = {"float32": 4, "float16": 2 + 4 / 32, "int8": 1 + 8 / 32}
    for tile in (*GPU_TILES, *F16_TILES, *INT8_TILES):
        nbytes = bytes_of_column[tile.activation_dtype] * tile.columns * (tile.rows + tile.tokens)
        assert nbytes <= 16384


def check_gemm_of_a_part(
    run_kernel: RunKernel, gated: bool, tuning: Tuning, tolerance: float = TOLERANCE
) -> None:
    epilogue = Epilogue(bias=True, activation="silu", gated=gated)
    rng = np.random.default_rng(gated)
    inputs = matrix_inputs(rng, "q4f16_1", 10, 96)
    inputs["x"] = away_from_ties(rng.normal(size=(9, 96)))
    inputs["state"] = np.array([0, 6, 0, 0], np.uint32)
    inputs |= bias_inputs(rng, epilogue, 31)
    inputs["output"] = poisoned(9 * 31)
    spec = gemm(
        "gemm under test",
        "q4f16_1",
        10,
        96,
        9,
        epilogue=epilogue,
        first_output=7,
        n_outputs=31,
        tuning=tuning,
    )
    assert_close(expected_and_found(run_kernel, spec, inputs, 6)["output"], tolerance)


@pytest.mark.parametrize("gated", [False, True])
def test_gemm_of_a_part_writes_into_its_place(
    run_kernel: RunKernel, tuning: Tuning, gated: bool
) -> None:
    check_gemm_of_a_part(run_kernel, gated, tuning)


@pytest.mark.sampled
@pytest.mark.parametrize("tile", [GPU_TILES[0], INT8_TILES[0]], ids=str)
@pytest.mark.parametrize("gated", [False, True])
def test_gemm_by_gpu_tiles_of_a_part(run_kernel: RunKernel, tile: GemmTile, gated: bool) -> None:
    check_gemm_of_a_part(run_kernel, gated, by_tile(tile))
