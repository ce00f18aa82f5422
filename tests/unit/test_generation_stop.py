"""StopStrings: nothing of a stop string is ever shown, everything else is."""

from __future__ import annotations

import itertools
import random

import pytest

from py_engine.generation.stop import StopStrings


def run(strings: tuple[str, ...], pieces: list[str]) -> tuple[list[str], bool]:
    stop = StopStrings(strings)
    shown = [stop.put(piece) for piece in pieces]
    return [*shown, stop.finish()], stop.found


def test_without_stop_strings_text_passes_through() -> None:
    assert run((), ["a", "", "b"]) == (["a", "", "b", ""], False)
    assert run(("",), ["a"]) == (["a", ""], False)


def test_a_stop_string_inside_one_piece_cuts_it() -> None:
    assert run(("END",), ["text END more"]) == (["text ", ""], True)


def test_a_stop_string_over_several_pieces_is_held_back() -> None:
    assert run(("END",), ["text E", "N", "D more", "x"]) == (["text ", "", "", "", ""], True)


def test_text_that_was_no_stop_string_comes_later() -> None:
    assert run(("END",), ["a E", "N", "!"]) == (["a ", "", "EN!", ""], False)


def test_held_text_is_returned_at_the_end() -> None:
    assert run(("END",), ["a EN"]) == (["a ", "EN"], False)


def test_repeated_beginnings_are_found() -> None:
    assert run(("aab",), ["a", "a", "a", "b"]) == (["", "", "a", "", ""], True)


def test_of_two_the_one_complete_first_counts() -> None:
    assert run(("abc", "b"), ["xabc"])[0][0] == "xa"
    assert run(("abc", "bc"), ["xabc"])[0][0] == "x"


@pytest.mark.parametrize("seed", range(20))
def test_result_does_not_depend_on_the_cuts(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choices("abc", k=12))
    strings = tuple("".join(rng.choices("abc", k=rng.randrange(1, 5))) for _ in range(3))
    results = set()
    for cuts in itertools.islice(itertools.combinations(range(1, 12), 4), 0, 300, 7):
        bounds = [0, *cuts, 12]
        pieces, found = run(strings, [text[a:b] for a, b in itertools.pairwise(bounds)])
        shown = "".join(pieces)
        assert not any(string in shown for string in strings)
        results.add((shown, found))
    assert len(results) == 1
