"""The ring of a sliding window: what it holds, and what of a sequence can be kept."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from py_engine.kernels.attention_shape import SlidingWindow

WINDOWS = [(1, 0, 1), (2, 1, 1), (5, 0, 3), (5, 4, 3), (8, 2, 20), (20, 4, 8)]
"""Size, sinks, longest chunk."""


class Ring:
    """Remembers which position every slot holds, and which tokens a query sees."""

    def __init__(self, window: SlidingWindow) -> None:
        self.window = window
        self.held: dict[int, int] = {}
        self.position = self.n_written = 0

    def slot(self, position: int) -> int:
        sinks = self.window.sinks
        return position if position < sinks else sinks + (position - sinks) % self.window.ring

    def seen(self, position: int) -> list[int]:
        line, size, sinks = list(range(position + 1)), self.window.size, self.window.sinks
        return line if len(line) <= size else line[:sinks] + line[len(line) - (size - sinks) :]

    def holds(self, positions: Iterable[int]) -> bool:
        return all(self.held.get(self.slot(p)) == p for p in positions)

    def append(self, n_tokens: int) -> bool:
        """Write a chunk, as the GPU does before its first query; tell whether all is there."""
        chunk = range(self.position, self.position + n_tokens)
        self.held |= {self.slot(position): position for position in chunk}
        self.position += n_tokens
        self.n_written = max(self.n_written, self.position)
        return all(self.holds(self.seen(position)) for position in chunk)

    def needed_from(self, n_tokens: int) -> list[int]:
        """Return what the token after the first `n_tokens` sees before itself."""
        return [p for p in self.seen(n_tokens) if p < n_tokens]


def ring_of(window: tuple[int, int, int]) -> Ring:
    return Ring(SlidingWindow.for_chunks(*window))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_ring_holds_what_every_query_of_a_chunk_sees(window: tuple[int, int, int]) -> None:
    rng, chunk = random.Random(1), window[2]
    for _ in range(20):
        ring = ring_of(window)
        assert all(ring.append(rng.choice([1, chunk, rng.randint(1, chunk)])) for _ in range(60))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_smaller_ring_would_not_do(window: tuple[int, int, int]) -> None:
    ring = ring_of(window)
    ring.window = replace(ring.window, ring=ring.window.ring - 1)
    if ring.window.ring:
        assert not all(ring.append(window[2]) for _ in range(60))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_tokens_are_kept_exactly_where_nothing_is_missing(window: tuple[int, int, int]) -> None:
    """After any history of chunks and cuts, for every length.

    Sinks alone are not worth keeping: where a prefix needs nothing else, either will do.
    """
    rng, chunk = random.Random(2), window[2]
    for _ in range(15):
        ring = ring_of(window)
        for _ in range(rng.randint(1, 40)):
            assert ring.append(rng.randint(1, chunk))
            for n_tokens in range(1, ring.position + 1):
                kept = ring.window.reusable_tokens(n_tokens, ring.n_written)
                assert kept in (0, n_tokens)
                if kept:
                    assert ring.holds(ring.needed_from(n_tokens))
                elif max(ring.needed_from(n_tokens), default=-1) >= ring.window.sinks:
                    assert not ring.holds(ring.needed_from(n_tokens))
            cut = rng.randint(max(1, ring.position - 2 * chunk), ring.position)
            if rng.random() < 0.3 and ring.window.reusable_tokens(cut, ring.n_written):
                ring.position = cut


def test_a_short_sequence_can_be_cut_anywhere_and_a_long_one_by_a_chunk() -> None:
    window = SlidingWindow.for_chunks(100, 4, 32)
    assert [window.reusable_tokens(n, 131) for n in (0, 1, 4, 50, 131)] == [0, 1, 4, 50, 131]
    assert [window.reusable_tokens(n, 1000) for n in (1000, 968, 967, 5, 4)] == [1000, 968, 0, 0, 0]
