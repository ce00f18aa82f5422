"""Cuts a plan's transfers into reads of a size that memory has room for several of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from py_engine.weights.transfers import Transfer


@dataclass(frozen=True)
class ReadSize:
    """The most bytes of a read, a multiple of 4, and how many reads are under way at once."""

    nbytes: int
    in_flight: int


OF_KEPT = ReadSize(8 << 20, 6)
"""For files that are kept, and read while they are still coming: the GPU gets bytes early."""

OF_REMOTE = ReadSize(32 << 20, 3)
"""For others, where each read is a request: a shard of MLC's files, of the usual size."""

_GAP_BYTES = 64 << 10  # reading so many unneeded bytes is cheaper than another request
_WORD = 4


@dataclass(frozen=True)
class Slice:
    """Bytes `begin` to `end` of a transfer."""

    transfer: Transfer
    begin: int
    end: int

    @property
    def is_last(self) -> bool:
        """Whether the transfer is complete with it."""
        return self.end == self.transfer.nbytes

    @property
    def file_begin(self) -> int:
        """Where it begins in the file."""
        return self.transfer.begin + self.begin

    @property
    def file_end(self) -> int:
        """Where it ends in the file."""
        return self.transfer.begin + self.end


@dataclass(frozen=True)
class Read:
    """Consecutive bytes of a file, and what they are slices of, in their order."""

    slices: tuple[Slice, ...]

    @property
    def file(self) -> str:
        """The file's path."""
        return self.slices[0].transfer.file

    @property
    def begin(self) -> int:
        """The first byte."""
        return self.slices[0].file_begin

    @property
    def end(self) -> int:
        """The byte after the last."""
        return max(piece.file_end for piece in self.slices)

    @property
    def nbytes(self) -> int:
        """How many bytes are read."""
        return self.end - self.begin


def plan_reads(transfers: Iterable[Transfer], most: int) -> Iterator[Read]:
    """Yield reads of at most `most` bytes (a multiple of 4) for transfers in their files' order.

    Where words allow it they end at multiples of `most` in the file: files are kept in such pieces.
    """
    pending: list[Slice] = []
    for transfer in transfers:
        for piece in _slices(transfer, most):
            if pending and not _joins(pending, piece, most):
                yield Read(tuple(pending))
                pending = []
            pending.append(piece)
    if pending:
        yield Read(tuple(pending))


def _slices(transfer: Transfer, most: int) -> Iterator[Slice]:
    """Cut a transfer at whole words where a multiple of `most` lies in the file."""
    assert most % _WORD == 0
    begin = 0
    while begin < transfer.nbytes:
        rest = most - (transfer.begin + begin) % most
        # A multiple that is no whole word away is left out.
        end = begin + (rest if rest % _WORD == 0 else most)
        yield Slice(transfer, begin, min(end, transfer.nbytes))
        begin = end


def _joins(pending: list[Slice], piece: Slice, most: int) -> bool:
    first, last = pending[0], pending[-1]
    return (
        piece.transfer.file == first.transfer.file
        and piece.file_begin // most == first.file_begin // most
        and piece.file_begin - last.file_end <= _GAP_BYTES
        and piece.file_end - first.file_begin <= most
    )
