"""The think block of a reply apart from its answer."""

from __future__ import annotations

import random

import pytest

from tests.support.replies import Reply, cuts, deltas, make_parser, parse

THOUGHT = "<think>\nTwo and\n two.\n</think>\n\nFour."


def test_thought_and_answer_come_apart_without_the_space_around() -> None:
    assert parse(None, THOUGHT, reasoning=True) == Reply("Four.", "Two and\n two.")


def test_prompt_may_have_opened_the_block() -> None:
    text = "\nTwo and two.\n</think>\n\nFour."
    assert parse(None, text, starts_in_reasoning=True) == Reply("Four.", "Two and two.")


def test_mark_that_repeats_the_prompts_is_no_thought() -> None:
    assert parse(None, THOUGHT, starts_in_reasoning=True) == Reply("Four.", "Two and\n two.")


@pytest.mark.parametrize("text", ["<think>\n\n</think>\n\nFour.", "<think></think>Four."])
def test_empty_thought_leaves_no_trace(text: str) -> None:
    assert deltas(make_parser(None, reasoning=True), [text]) == [{"content": "Four."}]


@pytest.mark.parametrize("text", ["<think>\nTwo and \n", "<think>Two and"])
def test_thought_that_is_cut_off_is_all_thought(text: str) -> None:
    assert parse(None, text, reasoning=True) == Reply("", "Two and")


@pytest.mark.parametrize(
    "text", ["Four. <think>no</think>", " \n Four.\n", "<thinking>", "<", "", "  ", "</think>x"]
)
def test_answer_without_a_thought_is_unchanged(text: str) -> None:
    assert parse(None, text, reasoning=True) == Reply(text)
    assert parse(None, text) == Reply(text)


def test_without_reasoning_the_block_is_text() -> None:
    assert parse(None, THOUGHT) == Reply(THOUGHT)


def test_second_block_is_text() -> None:
    assert parse(None, THOUGHT + THOUGHT, reasoning=True).content == "Four." + THOUGHT


def test_end_mark_is_held_back_only_while_it_may_match() -> None:
    parser = make_parser(None, starts_in_reasoning=True)
    assert parser.put("a </thi") == [{"reasoning_content": "a"}]
    assert parser.put("s") == [{"reasoning_content": " </this"}]
    assert parser.put(" </think") == []
    assert parser.is_reasoning
    assert parser.put(">\n") == []
    assert not parser.is_reasoning
    assert parser.put(" 4 ") == [{"content": "4 "}]
    assert parser.finish() == []


def test_is_reasoning_follows_the_block() -> None:
    parser = make_parser(None, reasoning=True)
    assert not parser.is_reasoning
    parser.put("<think>a")
    assert parser.is_reasoning
    parser.put("</think>b")
    assert not parser.is_reasoning


@pytest.mark.parametrize("starts_inside", [True, False])
def test_result_does_not_depend_on_the_cut(starts_inside: bool) -> None:
    rng = random.Random(3)
    texts = [
        THOUGHT,
        "<think>a</think",
        " \n<think> a </think> b",
        "<thin k>",
        "x</think>\n</think>",
    ]
    for text in texts:
        options = {"reasoning": True, "starts_in_reasoning": starts_inside}
        expected = parse(None, text, **options)
        for pieces in cuts(text, rng, 30):
            assert parse(None, pieces, **options) == expected, pieces
