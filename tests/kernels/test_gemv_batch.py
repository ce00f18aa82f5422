"""Products of a few tokens at once: against NumPy, and bit for bit against one token's."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.batch import MAX_BATCH, batch_stride
from py_engine.kernels.formats import WeightFormat
from py_engine.kernels.forms import GemvForm
from py_engine.kernels.gemv import gemv
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import Epilogue
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.kernels.cases import (
    RunKernel,
    assert_close,
    away_from_ties,
    expected_and_found,
    matrix_inputs,
    poisoned,
)
from tests.kernels.conftest import GEMV_FORMS, INT8_WITHOUT_SUBGROUPS, one_form, sampled, scaled
from tests.kernels.test_matmul import (
    BRANCH_NORM,
    EPILOGUES,
    NORMS,
    TOLERANCE,
    bias_inputs,
    branch_inputs,
    norm_inputs,
    norm_tolerance,
)

FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)
LABEL = "gemv under test"


OF_A_TEAM = ("four rows, staged", "int8, eight rows")
"""Forms that batches have not: they take the plain ones, with x in the same dtype."""

FORMS = [
    "subgroups",
    "plain",
    "many rows",
    "int8 without subgroups",
    "int8, many rows",
    *OF_A_TEAM,
]


@pytest.fixture(params=sampled(FORMS))
def batch_tuning(request: pytest.FixtureRequest, lanes: int | None) -> Tuning:
    """The forms that products of a batch have, and some that they have not."""
    if request.param == "plain":
        return PLAIN
    if request.param == "int8 without subgroups":
        return INT8_WITHOUT_SUBGROUPS
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    if request.param == "subgroups":
        return Tuning(lanes)
    return one_form(lanes, scaled(GEMV_FORMS[request.param], lanes))


def apart(rows: np.ndarray) -> np.ndarray:
    """Return f32 rows as they lie in a batch's buffer."""
    batch, columns = rows.shape
    held = np.full((batch, batch_stride(columns)), np.nan, np.float32)
    held[:, :columns] = rows
    return held


def batch_inputs(
    spec: KernelSpec, epilogue: Epilogue, norm: Norm | None = None
) -> dict[str, np.ndarray]:
    """Return random inputs of a product that is in one part."""
    batch, rows, columns = (spec.constants[name] for name in ("BATCH", "ROWS", "COLUMNS"))
    rng = np.random.default_rng(rows * columns)
    width = spec.constants["N_OUTPUTS"]
    inputs = matrix_inputs(rng, spec.constants["format"], rows, columns)
    inputs |= bias_inputs(rng, epilogue, width)
    if norm is not None:
        inputs |= norm_inputs(rng, norm, columns)
    rows = rng.normal(3 if norm else 0, 1, size=(batch, columns))
    added: np.ndarray | float = 0.0
    if "BRANCH_STRIDE" in spec.constants:
        of_branch, added = branch_inputs(rng, (batch, columns))
        inputs |= of_branch | {"branch": apart(of_branch["branch"])}
    inputs["x"] = apart(away_from_ties(rows + added, inputs.get("norm", 1.0)) - added)
    output = poisoned(batch * batch_stride(width)).reshape(batch, -1)
    if epilogue.residual:
        output[:, :width] = rng.normal(size=(batch, width)).astype(np.float32).view(np.uint32)
    inputs["output"] = output
    return inputs


@pytest.mark.parametrize("batch", [2, 3, MAX_BATCH])
@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogues(run_kernel: RunKernel, batch_tuning: Tuning, name: str, batch: int) -> None:
    epilogue = EPILOGUES[name]
    spec = gemv(LABEL, "q4f16_1", 66, 256, epilogue=epilogue, batch=batch, tuning=batch_tuning)
    found = expected_and_found(run_kernel, spec, batch_inputs(spec, epilogue))
    assert_close(found["output"], TOLERANCE)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_formats(run_kernel: RunKernel, batch_tuning: Tuning, weight_format: WeightFormat) -> None:
    spec = gemv(LABEL, weight_format, 10, 512, batch=4, tuning=batch_tuning)
    found = expected_and_found(run_kernel, spec, batch_inputs(spec, Epilogue()))
    assert_close(found["output"], TOLERANCE)


@pytest.mark.parametrize("kind", NORMS)
def test_norms(run_kernel: RunKernel, batch_tuning: Tuning, kind: str) -> None:
    norm = NORMS[kind]
    spec = gemv(LABEL, "q4f16_1", 6, 96, norm=norm, batch=4, tuning=batch_tuning)
    found = expected_and_found(run_kernel, spec, batch_inputs(spec, Epilogue(), norm))
    assert_close(found["output"], norm_tolerance(spec))


@pytest.mark.parametrize("gated", [False, True])
def test_a_part_writes_into_its_place(
    run_kernel: RunKernel, batch_tuning: Tuning, gated: bool
) -> None:
    epilogue = Epilogue(bias=True, activation="silu", gated=gated)
    spec = gemv(
        LABEL,
        "q4f16_1",
        10,
        96,
        epilogue=epilogue,
        first_output=7,
        n_outputs=31,
        batch=3,
        tuning=batch_tuning,
    )
    found = expected_and_found(run_kernel, spec, batch_inputs(spec, epilogue))
    assert_close(found["output"], TOLERANCE)


@pytest.mark.parametrize("kind", [None, *NORMS])
@pytest.mark.parametrize(
    "form",
    [None, "subgroups", *(GEMV_FORMS[name] for name in ("many rows", "int8", "int8, many rows"))],
    ids=str,
)
def test_a_token_is_the_same_alone(
    run_kernel: RunKernel, lanes: int | None, form: GemvForm | str | None, kind: str | None
) -> None:
    """To the last bit: a reply does not change with what runs beside it."""
    if lanes is None and form is not None:
        pytest.skip("this adapter has no subgroups")
    tuning = Tuning(None if form is None else lanes)
    if isinstance(form, GemvForm):
        tuning = one_form(lanes or 1, scaled(form, lanes or 1))
    check_same_alone(run_kernel, tuning, None if kind is None else NORMS[kind])


@pytest.mark.parametrize("kind", [None, "rms"])
@pytest.mark.parametrize("form", ["many rows", "int8, many rows"])
def test_a_token_with_a_branch_is_the_same_alone(
    run_kernel: RunKernel, lanes: int | None, form: str, kind: str | None
) -> None:
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    tuning = one_form(lanes, scaled(GEMV_FORMS[form], lanes))
    check_same_alone(run_kernel, tuning, None if kind is None else NORMS[kind], BRANCH_NORM)


def check_same_alone(
    run_kernel: RunKernel, tuning: Tuning, norm: Norm | None, branch_norm: Norm | None = None
) -> None:
    epilogue, columns = EPILOGUES["bias residual"], 1056
    one, four = (
        gemv(
            LABEL,
            "q4f16_1",
            130,
            columns,
            epilogue=epilogue,
            norm=norm,
            branch_norm=branch_norm,
            batch=batch,
            tuning=tuning,
        )
        for batch in (1, 4)
    )
    inputs = batch_inputs(four, epilogue, norm)
    result = expected_and_found(run_kernel, four, inputs)["output"]
    assert_close(result, norm_tolerance(four) if norm else 2e-5)
    together = result[1].reshape(4, -1)
    of_token = {"x": columns, "branch": columns, "output": 130}
    for token in range(4):
        own = {name: inputs[name][token, :n] for name, n in of_token.items() if name in inputs}
        alone = expected_and_found(run_kernel, one, inputs | own)["output"][1]
        assert alone.tobytes() == together[token, :130].tobytes()
