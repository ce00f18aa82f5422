"""The `messages` of a request: tool calls, results, reasoning, and parts that no model takes."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine import errors
from py_engine.api.messages import checked_messages

USER = {"role": "user", "content": "Hi"}


def call(arguments: Any = "{}", call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def calls(*listed: dict[str, Any], content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(listed)}


def result(call_id: Any = "call_1", content: Any = "7") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"a": [1]}', {"a": [1]}),
        ({"a": 1}, {"a": 1}),
        ("{}", {}),
        ('{"a": ', '{"a": '),
        ("[1]", "[1]"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_arguments_become_an_object_where_they_are_one(given: Any, expected: Any) -> None:
    checked = checked_messages([USER, calls(call(given)), result()])
    assert checked[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "f", "arguments": expected},
            }
        ],
    }
    assert checked[2] == {"role": "tool", "content": "7", "tool_call_id": "call_1"}


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' + "[" * 101 + "]" * 101 + "}", '{"a": NaN}']
)
def test_arguments_that_no_template_could_render_stay_text(text: str) -> None:
    checked = checked_messages([USER, calls(call(text)), result()])
    assert checked[1]["tool_calls"][0]["function"]["arguments"] == text


def test_calls_may_have_content_and_come_several_at_once() -> None:
    messages = [
        USER,
        calls(call(call_id="a"), call(call_id="b"), content="I look."),
        result("b"),
        result("a", [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]),
    ]
    checked = checked_messages(messages)
    assert checked[1]["content"] == "I look."
    assert checked[3]["content"] == "x\ny"


def test_result_needs_no_call_where_calls_are_in_contents_as_with_webllm() -> None:
    assistant = {"role": "assistant", "content": "<tool_call>...</tool_call>"}
    assert checked_messages([USER, assistant, result("0")])[2]["tool_call_id"] == "0"


def test_reasoning_is_kept_and_other_fields_are_not() -> None:
    assistant = {
        "role": "assistant",
        "content": "4",
        "reasoning_content": "2+2",
        "refusal": None,
        "annotations": [],
        "tool_calls": [],
        "function_call": None,
        "audio": None,
    }
    expected = {"role": "assistant", "content": "4", "reasoning_content": "2+2"}
    assert checked_messages([USER, assistant, USER])[1] == expected


def test_refusal_counts_as_content() -> None:
    refusal = {"role": "assistant", "content": None, "refusal": "I cannot."}
    assert checked_messages([USER, refusal, USER])[1]["content"] == "I cannot."
    part = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert checked_messages([USER, part, USER])[1]["content"] == "No."


def test_the_callers_messages_are_left_alone() -> None:
    messages = [USER, calls(call('{"a": 1}')), result()]
    checked_messages(messages)
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("messages", "error", "named"),
    [
        ([calls(call()), result("other")], errors.ConfigValueError, r"'other'.*call_1"),
        ([calls(call()), result(None)], errors.ContentTypeError, r"\[1\]\.tool_call_id is None"),
        ([calls(call()), {"role": "tool", "content": "7"}], errors.ContentTypeError, "tool_call"),
        ([calls(call()), result(content=None)], errors.ContentTypeError, r"\[1\]\.content"),
        ([calls(call(None)), result()], errors.ConfigValueError, r"function\.arguments is None"),
        ([calls(call(5)), result()], errors.ConfigValueError, r"tool_calls\[0\].*arguments is 5"),
        ([calls({**call(), "id": 1}), result()], errors.ContentTypeError, r"\.id is 1"),
        ([calls({**call(), "type": "custom"}), result()], errors.ConfigValueError, "custom"),
        (
            [calls({"function": {}, "id": "1"}), result()],
            errors.ContentTypeError,
            r"function\.name",
        ),
        ([calls("x"), result()], errors.ConfigValueError, r"tool_calls\[0\] is 'x'"),  # type: ignore[arg-type]
        ([{**USER, "tool_calls": [call()]}], errors.ConfigValueError, "in an assistant's message"),
        (
            [{"role": "assistant", "content": "", "tool_calls": 5}, USER],
            errors.ConfigValueError,
            "tool_calls is 5",
        ),
        (
            [{"role": "assistant", "content": None, "function_call": {"name": "f"}}, USER],
            errors.UnsupportedFieldsError,
            "function_call.*tool_calls",
        ),
        ([{"role": "function", "content": "7"}], errors.UnsupportedRoleError, "'function'"),
        (
            [{"role": "assistant", "audio": {"id": "a"}}, USER],
            errors.UnsupportedFieldsError,
            "audio",
        ),
        (
            [{"role": "assistant", "content": None, "refusal": 5}, USER],
            errors.ContentTypeError,
            "refusal is 5",
        ),
        (
            [{"role": "assistant", "content": "x", "reasoning_content": 5}, USER],
            errors.ContentTypeError,
            "reasoning_content is 5",
        ),
        ([USER, calls(call())], errors.MessageOrderError, r"messages\[1\]"),
    ],
)
def test_wrong_messages_are_named(messages: list[Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        checked_messages(messages)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_parts_that_are_no_text_are_refused_as_by_webllm(kind: str) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "data:"}}]
    with pytest.raises(errors.UserMessageContentErrorForNonVLM, match=rf"content\[1\].*'{kind}'"):
        checked_messages([{"role": "user", "content": content}])


def test_thousands_of_messages_are_checked() -> None:
    messages = [USER, {"role": "assistant", "content": "x"}] * 5000 + [USER]
    assert len(checked_messages(messages)) == 10_001
