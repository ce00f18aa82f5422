"""Checks of chat requests: each wrong value is its class of error and named in the text."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine import errors
from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.objects import ApiObject

USER = {"role": "user", "content": "Hi"}


def check(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.from_dict({"messages": [USER], **fields})


def test_defaults_are_the_models() -> None:
    assert check() == ChatCompletionRequest([USER])


def test_all_fields_are_read() -> None:
    request = check(
        model="m",
        stream=True,
        stream_options={"include_usage": True},
        n=1,
        max_tokens=5,
        temperature=0,
        top_p=1,
        seed=-3,
        stop=["a", "b"],
    )
    expected = ChatCompletionRequest(
        [USER], "m", True, True, 1, 5, 0.0, 1.0, -3, ("a", "b"), unknown_fields=()
    )
    assert request == expected


def test_null_means_absent() -> None:
    names = ["model", "stream", "stream_options", "n", "max_tokens", "temperature", "top_p"]
    names += ["seed", "stop", "tools", "logprobs", "response_format", "extra_body"]
    assert check(**dict.fromkeys(names)) == check()


def test_numbers_of_javascript_are_integers_where_whole() -> None:
    request = check(max_tokens=5.0, seed=7.0, n=2.0)
    assert (request.max_tokens, request.seed, request.n) == (5, 7, 2)


def test_max_completion_tokens_is_the_newer_name() -> None:
    assert check(max_completion_tokens=7).max_tokens == 7
    assert check(max_completion_tokens=7, max_tokens=7).max_tokens == 7
    with pytest.raises(errors.ConfigValueError, match="mean the same"):
        check(max_completion_tokens=7, max_tokens=8)


def test_stop_may_be_one_string() -> None:
    assert check(stop="END").stop == ("END",)


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"temperature": -0.1}, errors.NonNegativeError, r"temperature is -0\.1"),
        ({"temperature": "hot"}, errors.ConfigValueError, "temperature is 'hot'"),
        ({"temperature": True}, errors.ConfigValueError, "temperature is True"),
        ({"temperature": float("nan")}, errors.ConfigValueError, "temperature is nan"),
        ({"temperature": float("inf")}, errors.ConfigValueError, "temperature is inf"),
        ({"top_p": 0}, errors.RangeError, r"top_p is 0\.0"),
        ({"top_p": 1.01}, errors.RangeError, r"top_p is 1\.01"),
        ({"top_p": [1]}, errors.ConfigValueError, "top_p"),
        ({"max_tokens": 0}, errors.MinValueError, "max_tokens is 0"),
        ({"max_tokens": -1}, errors.MinValueError, "max_tokens is -1"),
        ({"max_tokens": 1.5}, errors.ConfigValueError, r"max_tokens is 1\.5"),
        ({"max_completion_tokens": 0}, errors.MinValueError, "max_completion_tokens is 0"),
        ({"n": 0}, errors.MinValueError, "n is 0"),
        ({"n": "2"}, errors.ConfigValueError, "n is '2'"),
        ({"n": 2, "stream": True}, errors.StreamingCountError, "n is 2"),
        ({"seed": 1.5}, errors.SeedTypeError, r"seed is 1\.5"),
        ({"seed": "1"}, errors.SeedTypeError, "seed is '1'"),
        ({"seed": False}, errors.SeedTypeError, "seed is False"),
        ({"stop": 5}, errors.ConfigValueError, "stop is 5"),
        ({"stop": ["a", 5]}, errors.ConfigValueError, "stop"),
        ({"stop": ["a", ""]}, errors.ConfigValueError, "stop has an empty string"),
        ({"stop": ""}, errors.ConfigValueError, "stop has an empty string"),
        ({"stream": "yes"}, errors.ConfigValueError, "stream is 'yes'"),
        ({"stream_options": {}}, errors.InvalidStreamOptionsError, "stream_options"),
        (
            {"stream": False, "stream_options": {"include_usage": True}},
            errors.InvalidStreamOptionsError,
            "stream_options",
        ),
        ({"stream": True, "stream_options": 5}, errors.ConfigValueError, "stream_options is 5"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            errors.ConfigValueError,
            "include_usage is 1",
        ),
        ({"model": 5}, errors.ConfigValueError, "model is 5"),
        ({"extra_body": 5}, errors.ConfigValueError, "extra_body is 5"),
    ],
)
def test_wrong_values(fields: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        check(**fields)
    assert type(caught.value) is error
    assert "but" in str(caught.value) or "Leave" in str(caught.value)


@pytest.mark.parametrize("request_data", [None, 5, "x", [USER]])
def test_request_must_be_an_object(request_data: Any) -> None:
    with pytest.raises(errors.ConfigValueError, match="request"):
        ChatCompletionRequest.from_dict(request_data)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"logit_bias": {"5": 1}},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -1},
        {"repetition_penalty": 1.1},
        {"ignore_eos": True},
        {"top_k": 40},
        {"min_p": 0.05},
        {"functions": [{}]},
    ],
)
def test_fields_that_change_the_answer_are_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.UnsupportedFieldsError, match=next(iter(fields))):
        check(**fields)


def test_all_unsupported_fields_are_listed_at_once() -> None:
    with pytest.raises(
        errors.UnsupportedFieldsError, match=r"top_k, logprobs, extra_body\.enable_thinking are"
    ):
        check(top_k=5, logprobs=True, extra_body={"enable_thinking": False})


def test_fields_at_their_neutral_value_are_accepted() -> None:
    request = check(
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
        response_format={"type": "text"},
        logprobs=False,
        top_logprobs=0,
        logit_bias={},
        presence_penalty=0,
        frequency_penalty=0.0,
        repetition_penalty=1,
        ignore_eos=False,
        top_k=-1,
        min_p=0,
        user="me",
        metadata={"a": "b"},
        store=False,
        extra_body={"enable_latency_breakdown": False},
    )
    assert request == check()


def test_unknown_fields_are_named_for_a_warning() -> None:
    assert check(temprature=1, zzz=None).unknown_fields == ("temprature", "zzz")


def test_messages_may_be_objects_of_a_response() -> None:
    reply = ApiObject({"role": "assistant", "content": "Hello", "refusal": None, "tool_calls": []})
    request = ChatCompletionRequest.from_dict({"messages": [USER, reply, USER]})
    assert request.messages[1] == {"role": "assistant", "content": "Hello"}


def test_developer_is_a_system_message() -> None:
    messages = [{"role": "developer", "content": "Be brief."}, USER]
    assert check(messages=messages).messages[0] == {"role": "system", "content": "Be brief."}


def test_text_parts_become_lines() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert check(messages=[{"role": "user", "content": parts}]).messages[0]["content"] == "one\ntwo"


def test_fields_for_templates_are_kept() -> None:
    messages = [
        {"role": "user", "content": "a", "name": "Ann"},
        {"role": "assistant", "content": "b", "reasoning_content": "c"},
        {"role": "tool", "content": "d", "tool_call_id": "1"},
    ]
    assert check(messages=messages).messages == messages


@pytest.mark.parametrize(
    ("messages", "error", "named"),
    [
        (None, errors.ConfigValueError, "messages is None"),
        ([], errors.ConfigValueError, r"messages is \[\]"),
        ("Hi", errors.ConfigValueError, "messages is 'Hi'"),
        (["Hi"], errors.ConfigValueError, r"messages\[0\] is 'Hi'"),
        ([{"content": "Hi"}], errors.UnsupportedRoleError, r"messages\[0\]\.role is None"),
        ([{"role": "bot", "content": "Hi"}], errors.UnsupportedRoleError, "'bot'.*assistant"),
        ([{"role": ["user"], "content": "Hi"}], errors.UnsupportedRoleError, "role"),
        ([USER, {"role": "system", "content": "x"}, USER], errors.SystemMessageOrderError, "1"),
        ([USER, {"role": "assistant", "content": "x"}], errors.MessageOrderError, "assistant"),
        ([{"role": "system", "content": "x"}], errors.MessageOrderError, "system"),
        ([{"role": "user"}], errors.ContentTypeError, "content is None"),
        ([{"role": "user", "content": 5}], errors.ContentTypeError, "content is 5"),
        ([{"role": "user", "content": []}], errors.ContentTypeError, r"content is \[\]"),
        ([{"role": "user", "content": ["x"]}], errors.ContentTypeError, r"content\[0\] is 'x'"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
            errors.ContentTypeError,
            "image_url.*text only",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": 5}]}],
            errors.ContentTypeError,
            r"content\[0\]\.text is 5",
        ),
        ([{"role": "assistant", "content": None}, USER], errors.ContentTypeError, "None"),
        (
            [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, USER],
            errors.UnsupportedFieldsError,
            "tool_calls",
        ),
    ],
)
def test_wrong_messages(messages: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        ChatCompletionRequest.from_dict({"messages": messages})
