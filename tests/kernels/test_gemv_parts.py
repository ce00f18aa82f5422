"""Products that join attention's parts to x: against NumPy, and to the bits of two dispatches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from py_engine.kernels.attention import attention_decode
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.attention_split import attention_split, key_split, split_bytes
from py_engine.kernels.formats import WeightFormat
from py_engine.kernels.forms import SplitKeys
from py_engine.kernels.gemv import gemv
from py_engine.kernels.gemv_forms import joinable_parts
from py_engine.kernels.gemv_input import AttentionParts
from py_engine.kernels.product import Epilogue
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.kernels.attention_cases import decode_runner, inputs_for
from tests.kernels.cases import (
    RunKernel,
    assert_close,
    expected_and_found,
    matrix_inputs,
    padded,
    poisoned,
)
from tests.kernels.conftest import (
    GEMV_FORMS,
    SHARING_FORMS,
    one_form,
    sampled,
    scaled,
)

EPILOGUE = Epilogue(bias=True, residual=True)
ROWS = 66


def tolerance(form: str) -> float:
    """Where x is rounded to 8 bits, its last bit may take it to the next code."""
    return 3e-3 if "int8" in form else 2e-5


@pytest.mark.parametrize(("head_dim", "n_heads", "n_parts"), [(64, 5, 4), (96, 2, 1), (32, 3, 7)])
@pytest.mark.parametrize("form", sampled(SHARING_FORMS))
def test_parts_are_joined(
    run_kernel: RunKernel, lanes: int | None, form: str, head_dim: int, n_heads: int, n_parts: int
) -> None:
    check_joined(run_kernel, lanes, form, "q4f16_1", AttentionParts(head_dim, n_parts), n_heads)


@pytest.mark.parametrize("weight_format", ["q8_0", "q4_k", "q3f16_1", "q4g128", "q0f16"])
def test_many_rows_join_parts_in_every_kind_of_format(
    run_kernel: RunKernel, lanes: int | None, weight_format: WeightFormat
) -> None:
    check_joined(run_kernel, lanes, "many rows", weight_format, AttentionParts(64, 3), 20)


def check_joined(
    run_kernel: RunKernel,
    lanes: int | None,
    form: str,
    weight_format: WeightFormat,
    attention_parts: AttentionParts,
    n_heads: int,
) -> None:
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    head_dim, n_parts = attention_parts.head_dim, attention_parts.n_parts
    columns = n_heads * head_dim
    rng = np.random.default_rng(columns)
    parts = rng.normal(size=(n_heads, n_parts, head_dim + 4)).astype(np.float32)
    parts[..., head_dim] *= 20
    parts[..., head_dim + 1] = rng.uniform(1, 40, (n_heads, n_parts))
    if n_parts > 1:  # the last has no keys
        parts[:, -1, :head_dim].view(np.uint32)[:] = poisoned(1)
        parts[:, -1, head_dim:] = [-3.4e38, 0, 0, 0]
    inputs = matrix_inputs(rng, weight_format, ROWS, columns)
    inputs |= {"split_parts": parts, "bias": rng.normal(size=ROWS).astype(np.float32)}
    inputs["output"] = rng.normal(size=ROWS).astype(np.float32)
    spec = gemv(
        "gemv under test",
        weight_format,
        ROWS,
        columns,
        epilogue=EPILOGUE,
        parts=attention_parts,
        tuning=one_form(lanes, scaled(GEMV_FORMS[form], lanes)),
    )
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], tolerance(form))


@pytest.mark.parametrize("form", ["two rows, staged", "many rows"])
@pytest.mark.parametrize("split_tuning", ["subgroups", "threads", "lanes"], indirect=True)
def test_a_product_joins_what_attention_leaves(
    run_kernel: RunKernel, lanes: int | None, split_tuning: Tuning, form: str
) -> None:
    """Whatever a step before left in a buffer of more parts; to the bits of a dispatch between.

    So few parts are added up one by one in that dispatch as well.
    """
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    shape = AttentionShape(6, 2, 64, 256)
    assert split_tuning.split_keys is not None
    keys = replace(split_tuning.split_keys, workgroups=16, least_keys=5, alone_keys=20)
    tuning = replace(split_tuning, split_keys=keys)
    split = key_split(shape, tuning)
    assert split is not None
    fewer = replace(keys, least_keys=20, workgroups=4 * 2)
    run_both = decode_runner(run_kernel, shape, replace(tuning, split_keys=fewer))
    columns = shape.n_heads * shape.head_dim
    product = {"rows": ROWS, "columns": columns}
    product["tuning"] = one_form(lanes, scaled(GEMV_FORMS[form], lanes))
    whole = gemv("gemv under test", "q4f16_1", **product)
    joining = gemv("gemv under test", "q4f16_1", parts=AttentionParts(64, 4), **product)
    decode = attention_decode("decode under test", shape)
    attend = attention_split("decode under test", shape, split.in_parts(4))
    weights = matrix_inputs(np.random.default_rng(1), "q4f16_1", ROWS, columns)
    held = {name: padded(array) for name, array in weights.items()}
    held |= {"output": padded(poisoned(ROWS))}
    held |= {"split_parts": poisoned(split_bytes(shape, split) // 4).tobytes()}
    for position in (79, 0, 41, 20, 19, 79):
        inputs = {n: padded(a) for n, a in inputs_for(decode, shape, position, 1).items()}
        x = run_both(decode, inputs, 1)["output"]
        own = {**held, "x": x[: 4 * columns]}
        wanted = run_kernel(whole, {b.name: own[b.name] for b in whole.bindings}, 1)
        own = {**inputs, "split_parts": held["split_parts"]}
        held |= run_kernel(attend, {b.name: own[b.name] for b in attend.bindings}, 1)
        found = run_kernel(joining, {b.name: held[b.name] for b in joining.bindings}, 1)
        assert found["output"][: 4 * ROWS] == wanted["output"][: 4 * ROWS], position


def test_forms_whose_rows_share_x_join_parts() -> None:
    keys = SplitKeys(64, 16, least_keys=5, alone_keys=20, joined_bytes=1 << 20)

    def n_joined(tuning: Tuning, head_dim: int = 64, fmt: WeightFormat = "q4f16_1") -> int:
        tuning = replace(tuning, split_keys=tuning.split_keys or keys)
        return joinable_parts(fmt, ROWS, 640, head_dim, tuning)

    assert [name for name in GEMV_FORMS if n_joined(one_form(4, GEMV_FORMS[name]))] == SHARING_FORMS
    staged = one_form(4, GEMV_FORMS["two rows, staged"])
    assert not n_joined(staged, fmt="q6_k")
    assert not n_joined(PLAIN) and not n_joined(Tuning(4))
    assert not n_joined(one_form(None, GEMV_FORMS["two rows, staged"]))
    assert not n_joined(staged, 80), "a block of x is not one head's"
    # 9 workgroups of 8 rows each read 2,720 bytes of ten heads' parts.
    part = 9 * 2720
    for n_parts, nbytes in ((8, 1 << 30), (8, 8 * part), (7, 8 * part - 1), (0, part - 1)):
        few = replace(keys, joined_bytes=nbytes)
        assert n_joined(replace(staged, split_keys=few)) == n_parts
    # Five subgroups of 16 rows each do.
    few = replace(keys, joined_bytes=3 * 5 * 2720)
    assert n_joined(replace(one_form(4, GEMV_FORMS["many rows"]), split_keys=few)) == 3
