"""Several tokens in one decode step: most kernels take them together, some in turn.

The rows are tokens of one sequence (`drafts.py`) or of several (`batcher.py`). What takes them in
turn is decode's own kernel over slices of the batch's buffers, and over what a row has of its own:
linear attention, whose states lie apart, and draws with more than their own kernels.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, groupby

from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import (
    Buffer,
    BufferSlice,
    Device,
    Kernel,
    KernelSpec,
    slice_stride,
)
from py_engine.kernels.batch import ROWS_BYTES, batch_stride
from py_engine.kernels.sampling import draw_scratch
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.decoder_ops import ROWS, row_widths
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.ops import Step
from py_engine.models.spec import DecoderSpec

PER_ROW = ROWS | {"state", "logits"}
"""The buffers of which every row has its own."""

_OF_BATCH = PER_ROW | {"split_parts", "probabilities", "survey", "candidates", "kept_tokens"}
"""Those that a batch has for itself; its kernels know where each row begins."""

STATES = "batch state"
"""The buffer with a `state` for each row."""

STATE_STRIDE = batch_stride(len(STATE_WORDS))
"""Words from one row's state to the next."""

ROW_TABLE = "batch rows"
"""The buffer of what kernels know of their rows: see `rows` of `kernels/batch.py`."""

ROW_TABLE_STRIDE = slice_stride(ROWS_BYTES)
"""Bytes from one kernel's part of it to the next."""


def batched(
    steps: Iterable[Step], n_rows: int, per_row: Collection[str] = PER_ROW
) -> tuple[Step, ...]:
    """Return the steps of `n_rows` tokens, given decode's for a batch of at least so many.

    Each row has its own of the buffers `per_row`, by the name that `row_name` gives.
    """
    groups = groupby(steps, key=_takes_batches)
    return tuple(
        chain.from_iterable(
            (_together(step, n_rows) for step in group)
            if is_together
            else _row_by_row(tuple(group), n_rows, per_row)
            for is_together, group in groups
        )
    )


def _takes_batches(step: Step) -> bool:
    return bool(step.kernel.constants.get("BATCH"))


def _together(step: Step, n_rows: int) -> Step:
    names = tuple(f"batch {n}" if n in _OF_BATCH else n for n in step.buffers)
    return Step(step.kernel, names, n_rows)


def _row_by_row(steps: tuple[Step, ...], n_rows: int, per_row: Collection[str]) -> Iterator[Step]:
    """Take a row through all of the steps before the next one: their scratch is shared."""
    return chain.from_iterable(row_steps(steps, row, per_row) for row in range(n_rows))


def row_steps(steps: Iterable[Step], row: int, per_row: Collection[str]) -> Iterator[Step]:
    """Return steps of one token over what a row has of its own."""
    for step in steps:
        names = tuple(row_name(n, row) if n in per_row else n for n in step.buffers)
        yield Step(step.kernel, names)


def is_exact(steps: Iterable[Step]) -> bool:
    """Return whether a batch's products have the bits of decode's, whose steps these are.

    Those of teams of lanes (`GemvForm`) add up in another order.
    """
    products = (step.kernel for step in steps if step.kernel.name == "gemv")
    return not any("LANES" in kernel.constants for kernel in products)


def row_name(name: str, row: int) -> str:
    """Return the name of what one row has of a batch's buffer."""
    return f"batch {name} {row}"


async def create_batch(
    device: Device,
    spec: DecoderSpec,
    steps: DecoderSteps,
    batch: int,
    n_rows: int,
    without: Collection[str] = (),
) -> dict[str, Buffer]:
    """Make a batch's buffers, and one for so many kernels' `rows`, ROW_TABLE.

    Raises OutOfMemoryError and DeviceLostError; nothing is left then.
    """
    made: dict[str, Buffer] = {}
    sizes = {name: 4 * batch_stride(width) for name, width in _widths(spec).items()}
    sizes["split_parts"] = steps.split_bytes
    sizes |= draw_scratch(spec.active_vocab_size, steps.tuning)
    try:
        async with device.check("making room for several tokens at once"):
            for name, nbytes in sizes.items():
                if nbytes and name not in without:
                    label = f"batch {name}"
                    made[label] = device.create_buffer(batch * nbytes, label)
            made[ROW_TABLE] = device.create_buffer(
                n_rows * ROW_TABLE_STRIDE, ROW_TABLE, is_uniform=True
            )
    except BaseException:
        destroy_buffers(made.values())
        raise
    return made


async def compile_missing(
    device: Device, steps: Iterable[Step], kernels: dict[KernelSpec, Kernel]
) -> None:
    """Add the kernels of `steps` to those that there are.

    Raises ShaderCompilationError and DeviceLostError.
    """
    missing = list(dict.fromkeys(s.kernel for s in steps if s.kernel not in kernels))
    kernels.update(zip(missing, await device.compile(missing), strict=True))


def batch_rows(
    spec: DecoderSpec, batch: int, buffers: Mapping[str, Buffer]
) -> dict[str, BufferSlice]:
    """Return the rows of those buffers of a batch that are given, by `row_name`."""
    return {
        row_name(name, row): BufferSlice(
            buffers[f"batch {name}"], 4 * row * batch_stride(width), 4 * width
        )
        for name, width in _widths(spec).items()
        if f"batch {name}" in buffers
        for row in range(batch)
    }


def row_words(
    states: Iterable[int], first_slots: Iterable[int], samplings: Iterable[int]
) -> array[int]:
    """Return what a kernel knows of its rows: `rows` of `kernels/batch.py`."""
    words = array("I")
    for state, first_slot, sampling in zip(states, first_slots, samplings, strict=True):
        words.extend((state * STATE_STRIDE, first_slot, sampling, 0))
    return words


def _widths(spec: DecoderSpec) -> dict[str, int]:
    """Return the words of a row of each buffer."""
    return {**row_widths(spec), "logits": spec.active_vocab_size, "state": len(STATE_WORDS)}
