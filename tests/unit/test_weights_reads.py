"""How transfers become reads."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from py_engine.weights.reads import plan_reads
from py_engine.weights.transfers import Transfer

MOST = 64


@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=12),
    start=st.integers(0, 200),
    gap=st.sampled_from([0, 4, 30]),
)
def test_every_byte_once_in_reads_of_at_most_a_piece(
    sizes: list[int], start: int, gap: int
) -> None:
    transfers, at = [], start
    for nbytes in sizes:
        transfers.append(Transfer("file", at, nbytes))
        at += nbytes + gap
    reads = list(plan_reads(transfers, MOST))
    slices = [piece for read in reads for piece in read.slices]
    assert [(s.transfer, s.begin) for s in slices] == sorted(
        ((s.transfer, s.begin) for s in slices), key=lambda each: (each[0].begin, each[1])
    )
    for transfer in transfers:
        of_transfer = [piece for piece in slices if piece.transfer is transfer]
        assert of_transfer[0].begin == 0 and of_transfer[-1].is_last
        assert all(a.end == b.begin and b.begin % 4 == 0 for a, b in pairwise(of_transfer))
    assert all(read.nbytes <= MOST for read in reads)


def test_reads_end_where_pieces_of_a_file_do() -> None:
    """So that none has to be put together of two."""
    transfers = [Transfer("file", 40, 100), Transfer("file", 140, 20), Transfer("file", 160, 200)]
    reads = list(plan_reads(transfers, MOST))
    assert [(read.begin, read.end) for read in reads] == [
        (40, 64),
        (64, 128),
        (128, 192),
        (192, 256),
        (256, 320),
        (320, 360),
    ]
    # One that begins at no whole word is cut at its own.
    [first, *_] = plan_reads([Transfer("file", 41, 200)], MOST)
    assert (first.begin, first.end) == (41, 41 + MOST)
