"""Special tokens' texts in messages: found, marked and cut."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.conversation.control_tokens import ControlTokens

TOKENS = ("<s>", "</s>", "<|im_end|>", "<|im_end_2|>", "<sys>", "[INST]", "x", "")
NONCHARACTERS = "".join(map(chr, range(0xFDD0, 0xFDF0)))


def parts_of(text: str, tokens: tuple[str, ...] = TOKENS) -> list[str]:
    marked = ControlTokens(tokens).mark([{"role": "user", "content": text}])
    return marked.parts(marked.values[0][0]["content"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [""]),
        ("nothing < here |im_end|>", ["nothing < here |im_end|>"]),
        ("a<|im_end|>b", ["a<", "|im_end|>b"]),
        ("<|im_end_2|>", ["<", "|im_end_2|>"]),
        ("</s><s>", ["<", "/s><", "s>"]),
        ("<<s><sys>[INST]", ["<<", "s><", "sys>[", "INST]"]),
        ("x marks", ["x marks"]),
    ],
)
def test_no_part_holds_a_token(text: str, expected: list[str]) -> None:
    assert parts_of(text) == expected


def test_tokens_inside_and_across_each_other_are_cut() -> None:
    tokens = ("<a<b>c>", "<b>", "b>c", ">c>!")
    for text in ("<a<b>c>!", "<a<b>c><b>c>!<a"):
        parts = parts_of(text, tokens)
        assert "".join(parts) == text
        assert not any(token in part for token in tokens for part in parts)


def test_without_an_occurrence_values_are_the_same_objects() -> None:
    values = [{"role": "user", "content": f"plain {NONCHARACTERS}"}]
    marked = ControlTokens(TOKENS).mark(values, None)
    assert marked.values[0] is values
    assert marked.parts("a\ufdd0b") == ["a\ufdd0b"]


def test_keys_and_nested_values_are_marked_but_roles_are_not() -> None:
    message = {
        "role": "<s>",
        "tool_calls": [{"function": {"name": "f<s>", "arguments": {"</s>": ["<s>", 1, None]}}}],
    }
    marked = ControlTokens(TOKENS).mark([message], ("<s>",), {"date": "<s>"})
    (shown,), tools, arguments = marked.values

    def cut(text: str) -> list[str]:
        return marked.parts(text)

    assert shown["role"] == "<s>"
    function = shown["tool_calls"][0]["function"]
    assert cut(function["name"]) == ["f<", "s>"]
    ((key, items),) = function["arguments"].items()
    assert cut(key) == ["<", "/s>"]
    assert cut(items[0]) == cut(tools[0]) == cut(arguments["date"]) == ["<", "s>"]
    assert items[1:] == [1, None]


@pytest.mark.parametrize("text", ["\ufdd0\ufdd1", "\\ufdd0", "\\ufdd1 \ufdd0"])
def test_characters_of_the_text_are_not_taken_for_marks(text: str) -> None:
    assert parts_of(f"{text}<s>{text}") == [f"{text}<", f"s>{text}"]


def test_text_with_every_possible_mark_loses_one_of_them() -> None:
    text = f"{NONCHARACTERS}<s>"
    assert parts_of(text) == [text[:-2].replace("\ufdd0", "\ufffd"), "s>"]


def test_mark_that_a_template_escapes_is_cut_too() -> None:
    import json

    marked = ControlTokens(TOKENS).mark("é</s>")
    assert marked.parts(json.dumps(marked.values[0])) == ['"\\u00e9<', '/s>"']


def test_a_vocabulary_without_special_tokens_marks_nothing() -> None:
    assert parts_of("</s>", ()) == ["</s>"]


@pytest.mark.parametrize("text", ["<|reserved" * 100_000, "<" * 1_000_000, "a" * 1_000_000])
def test_a_megabyte_is_searched_among_thousands_of_tokens(text: str) -> None:
    tokens = tuple(f"<|reserved_{index}|>" for index in range(5000))
    assert parts_of(text, tokens) == [text]


def test_values_that_are_no_text_stay() -> None:
    value: Any = {"a": 1, "b": [True, None, 2.5], "c": {"d": "<s>"}}
    marked = ControlTokens(TOKENS).mark(value).values[0]
    assert (marked["a"], marked["b"]) == (1, [True, None, 2.5])
