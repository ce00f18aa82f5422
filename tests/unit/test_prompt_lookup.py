"""What a reply may go on with: tokens that stood behind its last ones before."""

from __future__ import annotations

from random import Random

import pytest

from py_engine.generation.prompt_lookup import LONGEST_NGRAM, SHORTEST_NGRAM, PromptLookup


def lookup(
    prompt: list[int], reply: list[int], prediction: list[int] | None = None
) -> PromptLookup:
    made = PromptLookup(prompt, prediction or [])
    for token_id in reply:
        made.put(token_id)
    return made


def test_what_followed_in_the_prompt_follows() -> None:
    assert lookup([1, 2, 3, 4, 5, 6], [9, 2, 3]).draft(2) == [4, 5]
    assert lookup([1, 2, 3, 4, 5, 6], [9, 2, 3]).draft(9) == [4, 5, 6, 9, 2, 3]


def test_one_token_alone_is_not_enough() -> None:
    assert lookup([1, 2, 3, 4], [9, 3]).draft(4) == []
    assert lookup([], []).draft(4) == []


def test_the_latest_place_of_the_longest_ngram_counts() -> None:
    assert lookup([1, 2, 7, 1, 2, 8], [1, 2]).draft(1) == [8]
    assert lookup([5, 1, 2, 7, 6, 1, 2, 8], [5, 1, 2]).draft(1) == [7]


def test_a_reply_repeats_itself() -> None:
    assert lookup([9], [1, 2, 3, 1, 2]).draft(2) == [3, 1]


def test_a_prompt_goes_over_into_its_reply() -> None:
    assert lookup([4, 5, 6, 4], [5]).draft(2) == [6, 4]


def test_a_prediction_is_followed_as_long_as_it_is_true() -> None:
    prediction = [1, 2, 3, 4, 5, 6]
    assert lookup([9, 9], [], prediction).draft(3) == [1, 2, 3]
    assert lookup([9, 9], [1, 2], prediction).draft(9) == [3, 4, 5, 6]
    assert lookup([9, 9], [1, 2, 8], prediction).draft(9) == []


def test_a_prediction_is_taken_up_again() -> None:
    prediction = [1, 2, 3, 4, 5, 6]
    assert lookup([9, 9], [1, 8, 3, 4], prediction).draft(9) == [5, 6]
    assert lookup([9, 9], [*prediction, 7, 2, 3], prediction).draft(2) == [4, 5]


def test_no_text_goes_on_as_another() -> None:
    assert lookup([7, 8], [1, 2, 5, 1, 2], [6, 1, 2]).draft(3) == [5, 1, 2]
    assert lookup([7, 8], [4, 7, 8], [1, 2]).draft(3) == []
    assert lookup([7, 8], [4, 1, 2], [1, 2]).draft(3) == []


def slow_draft(tokens: list[int], most: int) -> list[int]:
    for n in range(LONGEST_NGRAM, SHORTEST_NGRAM - 1, -1):
        for at in range(len(tokens) - 1, n - 1, -1):
            if len(tokens) > n and tokens[at - n : at] == tokens[-n:]:
                return tokens[at : at + most]
    return []


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_a_search_finds(seed: int) -> None:
    chance = Random(seed)
    tokens = [chance.randrange(4) for _ in range(chance.randrange(1, 20))]
    made = PromptLookup(tokens)
    for _ in range(60):
        most = chance.randrange(1, 8)
        assert made.draft(most) == slow_draft(tokens, most)
        tokens = [*tokens, chance.randrange(4)]
        made.put(tokens[-1])
