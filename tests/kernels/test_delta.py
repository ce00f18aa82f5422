"""The kernel of linear attention against NumPy, and NumPy against transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from py_engine.kernels.delta import DeltaShape, gated_delta
from tests.conformance.delta_cases import DELTA_CASES, N_TOKENS, DeltaCase, run_transformers
from tests.kernels.cases import (
    RunKernel,
    assert_close,
    expected_and_found,
    padded,
    poisoned,
    run_reference,
)

Array = np.ndarray
CHUNKS = [33, 1, 2, 34]
STEPS = [20, *[1] * 50]
SHAPES = {
    "Qwen 3.5 0.8B": DeltaShape(2, 2, 128, 128, 4, 1e-6),
    "two values for a key": DeltaShape(2, 4, 128, 64, 4, 1e-6),
    "columns that leave threads over": DeltaShape(1, 3, 24, 20, 3, 0.1),
    "more columns than rows": DeltaShape(1, 1, 4, 512, 2, 1e-6),
    "one column of four": DeltaShape(2, 2, 300, 4, 5, 1e-6),
}


def run_in_chunks(run: RunKernel, case: DeltaCase, chunks: Sequence[int]) -> Array:
    """Take a sequence through the kernel; a chunk of one token is a decode step."""
    inputs, shape = case.inputs(), case.shape
    specs = {size: gated_delta("delta", shape, size) for size in {1, max(chunks)}}
    held = {name: padded(inputs[name]) for name in ("conv", "gates", "norm")}
    # What lies in the buffers before a sequence begins must not matter.
    held["history"] = padded(poisoned(shape.history_bytes // 4))
    held["memory"] = padded(poisoned(shape.memory_bytes // 4))
    outputs, done = [], 0
    for n_tokens in chunks:
        size = 1 if n_tokens == 1 else max(chunks)
        rows = np.full((size, inputs["projected"].shape[1]), np.nan, np.float32)
        rows[:n_tokens] = inputs["projected"][done : done + n_tokens]
        held["projected"] = padded(rows)
        held["state"] = padded(np.array([done, n_tokens, 0, 0], np.uint32))
        held["output"] = padded(poisoned(size * shape.output_size))
        spec = specs[size]
        held.update(run(spec, {b.name: held[b.name] for b in spec.bindings}, n_tokens))
        found = np.frombuffer(held["output"], np.float32)[: n_tokens * shape.output_size]
        outputs.append(found.reshape(n_tokens, shape.n_value_heads, shape.value_dim))
        done += n_tokens
    assert done == N_TOKENS
    return np.concatenate(outputs)


@pytest.mark.parametrize("case", DELTA_CASES, ids=lambda case: case.name)
def test_references_equal_transformers(case: DeltaCase) -> None:
    # transformers computes in f32, and a memory is carried on in f32 from chunk to chunk.
    for chunks in (CHUNKS, STEPS):
        assert_close((case.expected(), run_in_chunks(run_reference, case, chunks)), 1e-5)


@pytest.mark.parametrize("case", DELTA_CASES, ids=lambda case: case.name)
def test_kernel_equals_transformers(run_kernel: RunKernel, case: DeltaCase) -> None:
    assert_close((case.expected(), run_in_chunks(run_kernel, case, CHUNKS)), 1e-5)


@pytest.mark.parametrize("case", DELTA_CASES, ids=lambda case: case.name)
def test_fixture_equals_transformers(case: DeltaCase) -> None:
    pytest.importorskip("torch", reason="the live oracle needs torch")
    pytest.importorskip("transformers", reason="the live oracle needs transformers")
    for live in run_transformers(case):
        assert_close((case.expected(), live), 1e-5)


@pytest.mark.parametrize(("position", "n_tokens"), [(0, 5), (9, 1)])
@pytest.mark.parametrize("name", SHAPES)
def test_kernel_equals_the_reference(
    run_kernel: RunKernel, name: str, position: int, n_tokens: int
) -> None:
    """Including what the sequence leaves behind; a chunk may be shorter than its room."""
    case = DeltaCase(name, SHAPES[name], len(name))
    rng = np.random.default_rng(n_tokens)
    inputs, shape, room = case.inputs(), case.shape, max(1, n_tokens + n_tokens // 2)
    rows = inputs["projected"][:room].copy()
    rows[n_tokens:] = np.nan
    result = expected_and_found(
        run_kernel,
        gated_delta("delta under test", shape, room),
        {
            **inputs,
            "projected": rows,
            "state": np.array([position, n_tokens, 0, 0], np.uint32),
            "history": rng.normal(size=shape.history_bytes // 4).astype(np.float32),
            "memory": rng.normal(size=shape.memory_bytes // 4).astype(np.float32),
            "output": poisoned(room * shape.output_size),
        },
        n_tokens,
    )
    for pair in result.values():
        assert_close(pair, 2e-5)


def test_workgroup_memory_is_what_the_default_limit_gives() -> None:
    largest = DeltaShape(16, 48, 128, 128, 4, 1e-6)
    assert largest.workgroup_bytes <= 16384
    assert replace(largest, key_dim=256, value_dim=256).workgroup_bytes <= 16384
