"""What happens to the bytes of a file on their way into the buffers of a model, as data.

Most tensors are copied as they are. Others are re-laid or converted: pieces of them, some rows at a
time, go into a staging buffer, and a kernel writes them where they belong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from py_engine.gpu.types import KernelSpec
from py_engine.weights.parameters import Transform
from py_engine.weights.records import TensorRecord

STAGED_BYTES = 8 << 20
"""The most of a tensor that a kernel takes at a time, unless it needs the whole."""


@dataclass(frozen=True)
class Copy:
    """`nbytes` from byte `begin` of a transfer to byte `offset` of the buffer `target`."""

    begin: int
    nbytes: int
    target: str
    offset: int


@dataclass(frozen=True)
class Relay:
    """A kernel that writes `rows` x `columns` staged elements into the buffers `targets`.

    `to_row` is where the first of the rows comes to lie; only those are written that come to lie in
    rows `keep` (first, end). Rows of a head are brought from pairs to halves where `rope_pairs` is
    a head's size. The buffers' rows are `width` long, where that is not `columns`.
    """

    kernel: KernelSpec
    targets: tuple[str, ...]
    rows: int
    columns: int
    to_row: int
    keep: tuple[int, int]
    rope_pairs: int = 0
    width: int | None = None


@dataclass(frozen=True)
class Transfer:
    """`nbytes` of `file` from byte `begin` on: copies, or else what kernels do with them."""

    file: str
    begin: int
    nbytes: int
    copies: tuple[Copy, ...] = ()
    relays: tuple[Relay, ...] = ()


@dataclass(frozen=True)
class Run:
    """Rows that stay together: `rows` from `row` of a tensor on become those from `to_row` on.

    `part` is the part of the matrix that they come to lie in.
    """

    row: int
    rows: int
    part: int
    to_row: int


@dataclass(frozen=True)
class TensorLoad:
    """A tensor and where its rows go: `targets` has the buffers of each part.

    Without a `kernel` rows are copied as they are. `rope_pairs` is a head's size, `whole` a tensor
    that its kernel cannot take in pieces. With a `width`, its kernel lengthens rows to that.
    """

    record: TensorRecord
    rows: int
    columns: int
    runs: tuple[Run, ...]
    targets: tuple[tuple[str, ...], ...]
    kernel: KernelSpec | None = None
    rope_pairs: int = 0
    whole: bool = False
    width: int | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes that a row's elements have in the file."""
        return self.record.nbytes // self.rows if self.rows else 0


def transfers(load: TensorLoad) -> Iterator[Transfer]:
    """Yield a tensor's transfers."""
    record, width = load.record, load.row_bytes
    if load.kernel is None:
        copies = tuple(
            Copy(run.row * width, run.rows * width, load.targets[run.part][0], run.to_row * width)
            for run in load.runs
        )
        yield Transfer(record.file, record.byte_offset, record.nbytes, copies=copies)
    elif load.whole:
        relays = tuple(_relay(load, load.kernel, run, 0, load.rows) for run in load.runs)
        yield Transfer(record.file, record.byte_offset, record.nbytes, relays=relays)
    else:
        most = _rows_at_a_time(load)
        for run in load.runs:
            for first in range(run.row, run.row + run.rows, most):
                rows = min(most, run.row + run.rows - first)
                begin = record.byte_offset + first * width
                relay = _relay(load, load.kernel, run, first, rows)
                yield Transfer(record.file, begin, rows * width, relays=(relay,))


def _relay(load: TensorLoad, kernel: KernelSpec, run: Run, first: int, rows: int) -> Relay:
    """Return what becomes of `rows` rows from `first` on, as far as they are the run's."""
    return Relay(
        kernel=kernel,
        targets=load.targets[run.part],
        rows=rows,
        columns=load.columns,
        to_row=run.to_row + first - run.row,
        keep=(run.to_row, run.to_row + run.rows),
        rope_pairs=load.rope_pairs,
        width=load.width,
    )


def _rows_at_a_time(load: TensorLoad) -> int:
    """Return how many rows a kernel takes together: whole heads."""
    unit = load.rope_pairs or 1
    return max(STAGED_BYTES // max(load.row_bytes, 1) // unit, 1) * unit


def source_runs(
    rows: int, to_row: int, transform: Transform, head_dim: int, blocks: int
) -> Iterator[Run]:
    """Yield the runs of a tensor that begins at row `to_row` of its parameter.

    All is one run, but where rows lie as `blocks` (q, k and v) of each head in turn: then all heads
    of the first block come first, then those of the next.
    """
    if transform != "interleaved_heads":
        yield Run(0, rows, 0, to_row)
        return
    n_heads = rows // (blocks * head_dim)
    for head in range(n_heads):
        for block in range(blocks):
            source = (head * blocks + block) * head_dim
            yield Run(source, head_dim, 0, to_row + (block * n_heads + head) * head_dim)


def joined(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Return the runs in the order of their tensor, neighbours that stay together as one."""
    found: list[Run] = []
    for run in sorted(runs, key=lambda run: run.row):
        last = found[-1] if found else None
        if last and (last.row + last.rows, last.part, last.to_row + last.rows) == (
            run.row,
            run.part,
            run.to_row,
        ):
            found[-1] = Run(last.row, last.rows + run.rows, last.part, last.to_row)
        else:
            found.append(run)
    return tuple(found)
