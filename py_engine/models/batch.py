"""Several tokens in one decode step: products take them together, all else one after the other.

The rows are tokens of one sequence (`drafts.py`) or of several (`batcher.py`). What is not a
product is decode's own kernel over slices of the batch's buffers, and over what a row has of its
own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, groupby

from py_engine.gpu.types import Buffer, BufferSlice, Device, Kernel, KernelSpec
from py_engine.kernels.matmul import batch_stride
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.decoder_ops import ROWS, row_widths
from py_engine.models.kv_cache import destroy_buffers
from py_engine.models.ops import Step
from py_engine.models.spec import DecoderSpec

PER_ROW = ROWS | {"state", "logits"}
"""The buffers of which every row has its own."""

STATES = "batch state"
"""The buffer with a `state` for each row."""

STATE_STRIDE = batch_stride(len(STATE_WORDS))
"""Words from one row's state to the next."""


def batched(
    steps: Iterable[Step], n_rows: int, per_row: Collection[str] = PER_ROW
) -> tuple[Step, ...]:
    """Return the steps of a batch, given decode's with products of at least `n_rows` tokens.

    Each row has its own of the buffers `per_row`, by the name that `row_name` gives.
    """
    groups = groupby(steps, key=lambda step: step.kernel.name == "gemv")
    return tuple(
        chain.from_iterable(
            map(_together, group) if is_product else _row_by_row(tuple(group), n_rows, per_row)
            for is_product, group in groups
        )
    )


def _together(step: Step) -> Step:
    return Step(step.kernel, tuple(f"batch {n}" if n in PER_ROW else n for n in step.buffers))


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
    return not any("LANES" in step.kernel.constants for step in steps)


def row_name(name: str, row: int) -> str:
    """Return the name of what one row has of a batch's buffer."""
    return f"batch {name} {row}"


async def create_batch(
    device: Device, spec: DecoderSpec, batch: int, without: Collection[str] = ()
) -> dict[str, Buffer]:
    """Make a batch's buffers. Raises OutOfMemoryError and DeviceLostError; nothing is left then."""
    made: dict[str, Buffer] = {}
    try:
        async with device.check("making room for several tokens at once"):
            for name, width in _widths(spec).items():
                if name not in without:
                    nbytes = 4 * batch * batch_stride(width)
                    made[f"batch {name}"] = device.create_buffer(nbytes, f"batch {name}")
    except BaseException:
        destroy_buffers(made)
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


def _widths(spec: DecoderSpec) -> dict[str, int]:
    """Return the words of a row of each buffer."""
    return {**row_widths(spec), "logits": spec.active_vocab_size, "state": len(STATE_WORDS)}
