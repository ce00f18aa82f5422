"""Embedding gather, norms of rows and last row against NumPy.

Copies must be exact. RMSNorm: 1e-6, a few f32 roundings. LayerNorm: 1e-5, because
the rows here lie up to 50 from 0 and only the 3 of their spread are kept.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from py_engine.kernels.batch import MAX_BATCH, batch_stride
from py_engine.kernels.formats import WeightFormat
from py_engine.kernels.norm import Norm
from py_engine.kernels.rows import Ids, Target, embed, last_row, row_norm
from py_engine.kernels.tuning import Tuning
from py_engine.models.batch import STATE_STRIDE
from tests.kernels.cases import (
    RunKernel,
    assert_close,
    expected_and_found,
    matrix_inputs,
    poisoned,
)

FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize(("rows", "hidden"), [(5, 256), (67, 768)])
def test_embed_gives_the_very_values(
    run_kernel: RunKernel, weight_format: WeightFormat, rows: int, hidden: int
) -> None:
    rng = np.random.default_rng(rows)
    spec = embed("embed under test", weight_format, rows, hidden, max_tokens=rows + 5)
    inputs = matrix_inputs(rng, weight_format, rows, hidden)
    inputs["ids"] = np.array([*range(rows), rows + 7, 0, 0, 0, 0], np.uint32)
    inputs["output"] = poisoned((rows + 5) * hidden)
    expected, found = expected_and_found(run_kernel, spec, inputs, rows + 1)["output"]
    np.testing.assert_array_equal(expected.view(np.uint32), found.view(np.uint32))


@pytest.mark.parametrize("hidden", [32, 96, 320])
def test_embed_rows_of_a_few_blocks(run_kernel: RunKernel, hidden: int) -> None:
    rng = np.random.default_rng(hidden)
    for weight_format in ("q4f16_1", "q3f16_1"):
        spec = embed("embed under test", weight_format, 9, hidden, max_tokens=9)
        inputs = matrix_inputs(rng, weight_format, 9, hidden)
        inputs["ids"] = np.arange(9, dtype=np.uint32)
        inputs["output"] = poisoned(9 * hidden)
        expected, found = expected_and_found(run_kernel, spec, inputs, 9)["output"]
        np.testing.assert_array_equal(expected.view(np.uint32), found.view(np.uint32))


def test_embed_adds_to_what_is_there(run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(2)
    spec = embed("embed under test", "q4f16_1", 203, 64, max_tokens=9, add=True)
    inputs = matrix_inputs(rng, "q4f16_1", 203, 64)
    inputs["ids"] = rng.integers(0, 203, 9).astype(np.uint32)
    inputs["output"] = rng.normal(size=(9, 64)).astype(np.float32)
    assert_close(expected_and_found(run_kernel, spec, inputs, 7)["output"], 1e-6)


def test_embed_last_drawn_token(run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(1)
    spec = embed("embed under test", "q4f16_1", 203, 64, ids="drawn")
    inputs = matrix_inputs(rng, "q4f16_1", 203, 64)
    inputs["ids"] = np.array([1, 2, 202, 3], np.uint32)
    inputs["output"] = poisoned(64)
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], 1e-7)


def test_embed_of_a_part_writes_its_rows_alone(run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(3)
    spec = embed("embed under test", "q4f16_1", 20, 64, max_tokens=9, first_row=11, table_rows=31)
    inputs = matrix_inputs(rng, "q4f16_1", 20, 64)
    inputs["ids"] = np.array([0, 10, 11, 12, 29, 30, 31, 4_000_000_000, 12], np.uint32)
    inputs["output"] = poisoned(9 * 64)
    expected, found = expected_and_found(run_kernel, spec, inputs, 8)["output"]
    assert_close((expected, found), 1e-7)
    written = ~np.isnan(found.reshape(-1, 64)[:9, 0])
    assert written.tolist() == [False, False, True, True, True, True, True, True, False]


def test_embed_of_positions_adds_scaled_rows(run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(4)
    spec = embed(
        "embed under test", "q0f32", 30, 32, max_tokens=9, ids="positions", add=True, scale=5.5
    )
    inputs = matrix_inputs(rng, "q0f32", 30, 32)
    inputs["ids"] = np.array([13, 7, 2, 5], np.uint32)
    inputs["output"] = rng.normal(size=(9, 32)).astype(np.float32)
    assert_close(expected_and_found(run_kernel, spec, inputs, 7)["output"], 1e-6)


@pytest.mark.parametrize(("ids", "add"), [("drawn", False), ("positions", True)])
def test_embed_of_a_batch(run_kernel: RunKernel, ids: Ids, add: bool) -> None:
    """Each row is that of its own state, to the bits that it has alone."""
    rng, hidden, batch, states = np.random.default_rng(5), 96, 4, [5, 2, 0]
    inputs = matrix_inputs(rng, "q4f16_1", 203, hidden)
    arguments: dict[str, Any] = {"ids": ids, "add": add, "scale": 5.5}
    output = rng.normal(size=(batch, batch_stride(hidden))).astype(np.float32)
    words = rng.integers(0, 230, (MAX_BATCH, STATE_STRIDE)).astype(np.uint32)
    rows = np.zeros((MAX_BATCH, 4), np.uint32)
    rows[: len(states), 0] = [state * STATE_STRIDE for state in states]
    spec = embed("batch", "q4f16_1", 203, hidden, **arguments, batch=batch)
    given = inputs | {"ids": words.reshape(-1), "output": output, "rows": rows}
    pair = expected_and_found(run_kernel, spec, given, len(states))["output"]
    assert_close(pair, 1e-6)
    found = pair[1].reshape(output.shape)
    spec = embed("alone", "q4f16_1", 203, hidden, **arguments)
    for number, state in enumerate(states):
        given = inputs | {"ids": words[state, :4], "output": output[number, :hidden]}
        alone = expected_and_found(run_kernel, spec, given)["output"][1]
        assert alone.tobytes() == found[number, :hidden].tobytes()
    found[: len(states), :hidden] = output[: len(states), :hidden]
    np.testing.assert_array_equal(found, output, "what is between the rows")


NORMS = {
    "rms": Norm("rms", 1e-5),
    "layer": Norm("layer", 1e-12),
    "layer bias": Norm("layer", 1e-12, bias=True),
}


@pytest.mark.parametrize(("hidden", "n_tokens"), [(32, 1), (96, 3), (1056, 17), (320, 33)])
@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("rms", "copy"),
        ("rms", "add"),
        ("rms", "add_both"),
        ("layer", "copy"),
        ("layer bias", "add"),
    ],
)
def test_row_norm(
    run_kernel: RunKernel,
    tuning: Tuning,
    kind: str,
    target: Target,
    hidden: int,
    n_tokens: int,
) -> None:
    rng = np.random.default_rng(hidden)
    norm = NORMS[kind]
    spec = row_norm("norm under test", hidden, 40, norm, target=target, tuning=tuning)
    x, branch = (poisoned(40 * hidden).view(np.float32).reshape(40, hidden) for _ in range(2))
    # Means far from 0, where a variance from a difference of squares would lose all its digits.
    x[:n_tokens] = rng.normal(rng.uniform(-50, 50, (n_tokens, 1)), 3, (n_tokens, hidden))
    branch[:n_tokens] = rng.normal(2, 1, (n_tokens, hidden))
    output = poisoned(40 * hidden).view(np.float32).reshape(40, hidden)
    if target.startswith("add"):
        output[:n_tokens] = rng.normal(size=(n_tokens, hidden))
    inputs = {
        "x": x,
        "norm": rng.normal(1, 0.3, hidden).astype(np.float32),
        "norm_bias": rng.normal(0, 0.3, hidden).astype(np.float32),
        "branch": branch,
        "branch_norm": rng.normal(1, 0.3, hidden).astype(np.float32),
        "state": np.array([0, n_tokens, 0, 0], np.uint32),
        "output": output,
    }
    inputs = {binding.name: inputs[binding.name] for binding in spec.bindings}
    result = expected_and_found(run_kernel, spec, inputs, n_tokens)["output"]
    assert_close(result, 1e-6 if norm.kind == "rms" else 1e-5)


@pytest.mark.parametrize("hidden", [96, 320])
@pytest.mark.parametrize(
    ("kind", "target"), [("rms", "add"), ("rms", "add_both"), ("layer bias", "copy")]
)
def test_row_norm_of_a_batch(
    run_kernel: RunKernel, tuning: Tuning, kind: str, target: Target, hidden: int
) -> None:
    """Rows lie apart, and have the bits that each has alone."""
    rng, norm, stride = np.random.default_rng(hidden), NORMS[kind], batch_stride(hidden)
    inputs = {
        "norm": rng.normal(1, 0.3, hidden).astype(np.float32),
        "norm_bias": rng.normal(0, 0.3, hidden).astype(np.float32),
        "branch_norm": rng.normal(1, 0.3, hidden).astype(np.float32),
        "state": np.array([0, 1, 0, 0], np.uint32),
    }
    names = ("x", "branch", "output")
    rows = {name: rng.normal(2, 3, (8, hidden)).astype(np.float32) for name in names}
    for batch in (2, 4, 8):
        spec = row_norm("batch", hidden, 1, norm, target=target, tuning=tuning, batch=batch)
        apart = {name: poisoned(batch * stride).reshape(batch, stride) for name in rows}
        for name, words in apart.items():
            words[:, :hidden] = rows[name][:batch].view(np.uint32)
        held = {b.name: {**inputs, **apart}[b.name] for b in spec.bindings}
        result = expected_and_found(run_kernel, spec, held, batch)["output"]
        assert_close(result, 1e-5)
        one = row_norm("one", hidden, 1, norm, target=target, tuning=tuning)
        for row in range(batch):
            own = {name: values[row] for name, values in rows.items()}
            held = {b.name: {**inputs, **own}[b.name] for b in one.bindings}
            alone = expected_and_found(run_kernel, one, held)["output"][1]
            found = result[1].reshape(-1)[row * stride :][:hidden]
            np.testing.assert_array_equal(found, alone.reshape(-1)[:hidden])


def test_row_norm_in_place(run_kernel: RunKernel, tuning: Tuning) -> None:
    rng = np.random.default_rng(9)
    spec = row_norm("norm under test", 96, 20, NORMS["rms"], target="in_place", tuning=tuning)
    inputs = {
        "norm": rng.normal(1, 0.3, 96).astype(np.float32),
        "state": np.array([0, 17, 0, 0], np.uint32),
        "x": rng.normal(3, 2, (20, 96)).astype(np.float32),
    }
    expected, found = expected_and_found(run_kernel, spec, inputs, 17)["x"]
    assert_close((expected, found), 1e-6)
    np.testing.assert_array_equal(found[: 20 * 96].reshape(20, 96)[17:], inputs["x"][17:])


def test_layer_norm_of_equal_values_is_the_bias(run_kernel: RunKernel, tuning: Tuning) -> None:
    spec = row_norm("norm under test", 64, 1, NORMS["layer bias"], target="in_place", tuning=tuning)
    inputs = {
        "norm": np.ones(64, np.float32),
        "norm_bias": np.arange(64, dtype=np.float32),
        "state": np.array([0, 1, 0, 0], np.uint32),
        "x": np.full(64, 0.1, np.float32),
    }
    _, found = expected_and_found(run_kernel, spec, inputs)["x"]
    np.testing.assert_allclose(found[:64], inputs["norm_bias"], atol=0.02)


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
