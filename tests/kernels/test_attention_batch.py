"""Attention of a batch in one dispatch: against NumPy, and bit for bit against one token's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention import attention_decode, rope_append
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.attention_split import (
    attention_alone,
    attention_combine,
    attention_split,
    key_split,
    split_bytes,
)
from py_engine.kernels.batch import MAX_BATCH, Batch, batch_stride
from py_engine.kernels.forms import SplitKeys
from py_engine.kernels.tuning import Tuning
from py_engine.models.batch import STATE_STRIDE
from tests.kernels.attention_cases import decode_runner, inputs_for
from tests.kernels.cases import POISON, RunKernel, expected_and_found, padded, poisoned
from tests.kernels.test_attention_families import CONTEXT, FAMILIES, PARTS, WITH_SINKS

LABEL = "attention under test"
SHAPES = [(1, 1, 8), (9, 3, 64), (8, 1, 80)]
CASES = {
    **{str(shape): AttentionShape(*shape, CONTEXT) for shape in SHAPES},
    **{name: FAMILIES[name] for name in ("OLMo 2", "StableLM 2", "Qwen 3.5", "everything at once")},
    "sinks": next(iter(WITH_SINKS.values())),
    "a part": [*PARTS.values()][1],
    "codes": AttentionShape(4, 2, 32, CONTEXT, cache_dtype="int8"),
    "a part of codes": replace(next(iter(PARTS.values())), cache_dtype="int8"),
}
CACHES = ("k_cache", "v_cache")
POSITIONS = [40, 0, 63]
"""Of the rows of three sequences, in a batch of four."""

FIRST_SLOTS = [70, 0, 140]
STATES = [5, 2, 0]


def kernels_of(
    shape: AttentionShape, tuning: Tuning, batch: Batch, *, is_short: bool
) -> list[KernelSpec]:
    """Return the kernels of a batch's attention, in the order of their dispatches."""
    split = key_split(shape, tuning)
    if split is None:
        return [attention_decode(LABEL, shape, tuning.attention_threads, batch)]
    builds = (
        (attention_alone,)
        if is_short or split.splits == 1
        else (attention_split, attention_combine)
    )
    return [build(LABEL, shape, split, batch) for build in builds]


def single_inputs(
    spec: KernelSpec, shape: AttentionShape, positions: Sequence[int]
) -> list[dict[str, np.ndarray]]:
    """Return the inputs of each row alone; weights and tables are the same."""
    rows = [inputs_for(spec, shape, position, 1) for position in positions]
    shared = {n: x for n, x in rows[0].items() if n in ("q_norm", "k_norm", "rope")}
    return [row | shared for row in rows]


def spread(rows: Sequence[np.ndarray], stride: int, size: int) -> np.ndarray:
    """Return rows of words, `stride` apart, in a poisoned buffer for so many."""
    words = poisoned(stride * size)
    for number, row in enumerate(rows):
        words[number * stride :][: row.size] = row.reshape(-1).view(np.uint32)
    return words


def batch_inputs(
    shape: AttentionShape,
    tuning: Tuning,
    batch: Batch,
    singles: Sequence[Mapping[str, np.ndarray]],
    first_slots: Sequence[int],
    states: Sequence[int],
) -> dict[str, np.ndarray]:
    """Return the buffers that a batch has in place of its rows' own."""
    qkv = batch_stride(shape.qkv_heads * shape.head_dim)
    output = batch_stride(shape.n_heads * shape.head_dim)
    made = {n: x for n, x in singles[0].items() if n in ("q_norm", "k_norm", "rope")}
    made["qkv"] = spread([row["qkv"] for row in singles], qkv, batch.size)
    made["output"] = poisoned(output * batch.size)
    made["state"] = poisoned(STATE_STRIDE * MAX_BATCH)
    for state, row in zip(states, singles, strict=True):
        made["state"][state * STATE_STRIDE :][:4] = row["state"]
    slot = shape.slot_bytes // 4
    for name in CACHES:
        made[name] = poisoned((max(first_slots) + shape.slots) * slot)
        for first, row in zip(first_slots, singles, strict=True):
            words = np.ascontiguousarray(row[name]).reshape(-1).view(np.uint32)
            made[name][first * slot :][: words.size] = words
    table = np.zeros((MAX_BATCH, 4), np.uint32)
    table[: len(singles), 0] = [state * STATE_STRIDE for state in states]
    table[: len(singles), 1] = first_slots
    split = key_split(shape, tuning)
    parts = 0 if split is None else split_bytes(shape, split) // 4
    return made | {"rows": table, "split_parts": poisoned(parts * batch.size)}


def run_batch(
    run: RunKernel, kernels: Sequence[KernelSpec], inputs: Mapping[str, np.ndarray], n_rows: int
) -> dict[str, np.ndarray]:
    """Dispatch a batch's kernels, each checked against its reference; return what they leave."""
    held = dict(inputs)
    for kernel in kernels:
        own = {binding.name: held[binding.name] for binding in kernel.bindings}
        result = expected_and_found(run, kernel, own, n_rows)
        held |= {name: found.reshape(-1) for name, (_, found) in result.items()}
    return held


def words_of(array: np.ndarray, first: int, size: int) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint32)[first : first + size]


def assert_rows_are_those_alone(
    shape: AttentionShape,
    held: Mapping[str, np.ndarray],
    alone: Sequence[Mapping[str, bytes]],
    first_slots: Sequence[int],
) -> None:
    stride = batch_stride(shape.n_heads * shape.head_dim)
    slot = shape.slot_bytes // 4
    for row, (found, first) in enumerate(zip(alone, first_slots, strict=True)):
        size = shape.n_heads * shape.head_dim
        expected = np.frombuffer(found["output"], np.uint32)[:size]
        np.testing.assert_array_equal(words_of(held["output"], row * stride, size), expected)
        for name in CACHES:
            expected = np.frombuffer(found[name], np.uint32)[: shape.slots * slot]
            cached = words_of(held[name], first * slot, shape.slots * slot)
            np.testing.assert_array_equal(cached, expected)


def check_sequences(
    run_kernel: RunKernel, shape: AttentionShape, tuning: Tuning, positions: Sequence[int]
) -> None:
    """Run a batch of four with the next tokens of three sequences."""
    spec = attention_decode(LABEL, shape, tuning.attention_threads)
    singles = single_inputs(spec, shape, positions)
    is_short = is_alone(shape, tuning, positions)
    kernels = kernels_of(shape, tuning, Batch(4), is_short=is_short)
    inputs = batch_inputs(shape, tuning, Batch(4), singles, FIRST_SLOTS, STATES)
    held = run_batch(run_kernel, kernels, inputs, len(positions))
    run = decode_runner(run_kernel, shape, tuning, is_short=is_short)
    alone = [run(spec, {n: padded(x) for n, x in row.items()}, 1) for row in singles]
    assert_rows_are_those_alone(shape, held, alone, FIRST_SLOTS)
    stride = batch_stride(shape.n_heads * shape.head_dim)
    unused = words_of(held["output"], len(positions) * stride, stride)
    assert (unused == POISON).all(), "there are three rows only"


def is_alone(shape: AttentionShape, tuning: Tuning, positions: Sequence[int]) -> bool:
    """Return whether all rows have few enough keys for the form that shares none out."""
    split = key_split(shape, tuning)
    return split is not None and max(positions) < split.alone_keys


@pytest.mark.parametrize("name", CASES)
def test_rows_of_several_sequences(run_kernel: RunKernel, decode_tuning: Tuning, name: str) -> None:
    check_sequences(run_kernel, CASES[name], decode_tuning, POSITIONS)


@pytest.mark.sampled
@pytest.mark.parametrize("by_subgroups", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_rows_of_short_sequences(
    run_kernel: RunKernel, lanes: int | None, name: str, by_subgroups: bool
) -> None:
    if by_subgroups and lanes is None:
        pytest.skip("this adapter has no subgroups")
    keys = SplitKeys(64, workgroups=14, least_keys=9, alone_keys=10, by_subgroups=by_subgroups)
    tuning = Tuning(lanes, split_keys=keys)
    assert is_alone(CASES[name], tuning, [7, 0, 9])
    check_sequences(run_kernel, CASES[name], tuning, [7, 0, 9])


@pytest.mark.parametrize("name", CASES)
def test_rows_of_a_draft(run_kernel: RunKernel, decode_tuning: Tuning, name: str) -> None:
    for position in (0, 37):
        check_draft(run_kernel, CASES[name], decode_tuning, position)


def check_draft(
    run_kernel: RunKernel, shape: AttentionShape, decode_tuning: Tuning, position: int
) -> None:
    """Keys of all rows are appended first; a row does not see those of later ones."""
    batch = Batch(4, is_draft=True)
    spec = attention_decode(LABEL, shape, decode_tuning.attention_threads)
    positions = [position, position + 1, position + 2, position + 2]
    singles = single_inputs(spec, shape, positions)
    singles[3] = singles[2]
    inputs = batch_inputs(shape, decode_tuning, batch, singles, [0] * 4, range(4))
    # One sequence: what its first token may see, and room for the others.
    inputs |= {cache: words_of(singles[0][cache], 0, inputs[cache].size) for cache in CACHES}
    split = key_split(shape, decode_tuning)
    is_short = is_alone(shape, decode_tuning, positions)
    workgroup = decode_tuning.attention_threads if split is None else split.workgroup
    kernels = [
        rope_append(LABEL, shape, batch.size, batch, workgroup),
        *kernels_of(shape, decode_tuning, batch, is_short=is_short),
    ]
    held = run_batch(run_kernel, kernels, inputs, len(positions))
    run = decode_runner(run_kernel, shape, decode_tuning, is_short=is_short)
    caches = {cache: padded(singles[0][cache]) for cache in CACHES}
    stride, size = batch_stride(shape.n_heads * shape.head_dim), shape.n_heads * shape.head_dim
    for row, single in enumerate(singles):
        result = run(spec, {n: padded(x) for n, x in single.items()} | caches, 1)
        caches = {cache: result[cache] for cache in CACHES}
        expected = np.frombuffer(result["output"], np.uint32)[:size]
        np.testing.assert_array_equal(words_of(held["output"], row * stride, size), expected)
    for cache in CACHES:
        expected = np.frombuffer(caches[cache], np.uint32)[: held[cache].size]
        np.testing.assert_array_equal(words_of(held[cache], 0, expected.size), expected)
