"""Checks of chat requests: each wrong value is its class of error and named in the text."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine import errors
from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.objects import ApiObject
from py_engine.api.tools import ToolChoice

USER = {"role": "user", "content": "Hi"}
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
NOT_TEXT = errors.UserMessageContentErrorForNonVLM
UNENFORCEABLE = {
    "type": "object",
    "properties": {"a": {"type": "array", "uniqueItems": True}},
}


def check(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.from_dict({"messages": [USER], **fields})


def tool(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS, **fields}}


def choose(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allow(*names: str, mode: str = "auto") -> dict[str, Any]:
    allowed = {"mode": mode, "tools": [choose(name) for name in names]}
    return {"type": "allowed_tools", "allowed_tools": allowed}


def test_defaults_are_the_models() -> None:
    assert check() == ChatCompletionRequest(messages=[USER])


def test_null_means_absent() -> None:
    names = ["tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "enable_thinking"]
    names += ["chat_template_kwargs", "max_completion_tokens", "audio", "functions"]
    assert check(**dict.fromkeys(names)) == check()


def test_max_completion_tokens_is_the_newer_name() -> None:
    assert check(max_completion_tokens=7).max_tokens == 7
    assert check(max_completion_tokens=7, max_tokens=7).max_tokens == 7
    with pytest.raises(errors.ConfigValueError, match="mean the same"):
        check(max_completion_tokens=7, max_tokens=8)
    with pytest.raises(errors.MinValueError, match="max_completion_tokens is 0"):
        check(max_completion_tokens=0)


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, None),
        ({"extra_body": {"enable_thinking": False}}, False),
        ({"enable_thinking": True}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "none", "enable_thinking": True}, True),
        ({"reasoning_effort": "high"}, None),
    ],
)
def test_thinking_has_three_spellings(fields: dict[str, Any], thinking: bool | None) -> None:
    request = check(**fields)
    assert request.enable_thinking is thinking
    assert "enable_thinking" not in request.template_args


def test_template_arguments_are_passed_on() -> None:
    request = check(chat_template_kwargs={"date": "today"}, reasoning_effort="low")
    assert request.template_args == {"date": "today", "reasoning_effort": "low"}


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt"])
def test_template_arguments_of_the_engine_are_refused(name: str) -> None:
    with pytest.raises(errors.ConfigValueError, match=rf"chat_template_kwargs\.{name}"):
        check(chat_template_kwargs={name: 1})


def test_tools_are_kept_as_given_with_parameters() -> None:
    bare = {"type": "function", "function": {"name": "g", "description": None}}
    request = check(tools=[tool(strict=False), bare])
    assert request.tools[0] == tool(strict=False)
    assert list(request.tools[0]["function"]) == ["name", "parameters", "strict"]
    nothing = {"type": "object", "properties": {}}
    assert request.tools[1]["function"] == {"name": "g", "parameters": nothing}
    assert request.parallel_tool_calls


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, ToolChoice("none")),
        ({"tools": []}, ToolChoice("none")),
        ({"tool_choice": "auto"}, ToolChoice("none")),
        ({"tools": [tool()]}, ToolChoice("auto")),
        ({"tools": [tool()], "tool_choice": "none"}, ToolChoice("none")),
        ({"tools": [tool()], "tool_choice": "required"}, ToolChoice("required")),
        ({"tools": [tool()], "tool_choice": choose("f")}, ToolChoice("named", "f")),
    ],
)
def test_tool_choice(fields: dict[str, Any], choice: ToolChoice) -> None:
    assert check(**fields).tool_choice == choice


def test_allowed_tools_leave_some() -> None:
    tools = [tool("f"), tool("g"), tool("h")]
    request = check(tools=tools, tool_choice=allow("h", "f", mode="required"))
    assert [each["function"]["name"] for each in request.tools] == ["f", "h"]
    assert request.tool_choice == ToolChoice("required")
    assert check(tools=tools, tool_choice=allow("g")).tool_choice == ToolChoice("auto")


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"tools": 5}, errors.ConfigValueError, "tools is 5"),
        ({"tools": [5]}, errors.ConfigValueError, r"tools\[0\] is 5"),
        ({"tools": [{"type": "custom"}]}, errors.UnsupportedToolTypeError, "type is 'custom'"),
        ({"tools": [{}]}, errors.UnsupportedToolTypeError, r"tools\[0\]\.type is None"),
        (
            {"tools": [{"type": "function"}]},
            errors.ConfigValueError,
            r"tools\[0\]\.function\.name is missing",
        ),
        ({"tools": [tool("a b")]}, errors.ConfigValueError, "name is 'a b'"),
        ({"tools": [tool("x" * 65)]}, errors.ConfigValueError, "name is 'xxx"),
        ({"tools": [tool("")]}, errors.ConfigValueError, "name is ''"),
        ({"tools": [tool("f"), tool("f")]}, errors.ConfigValueError, "'f' more than once"),
        ({"tools": [tool(description=5)]}, errors.ConfigValueError, "description is 5"),
        ({"tools": [tool(strict="yes")]}, errors.ConfigValueError, "strict is 'yes'"),
        ({"tools": [tool(parameters=[])]}, errors.ConfigValueError, "parameters is"),
        ({"tools": [tool(parameters={"type": "array"})]}, errors.ConfigValueError, "'object'"),
        (
            {"tools": [tool(parameters=UNENFORCEABLE, strict=True)]},
            errors.InvalidResponseFormatError,
            r"tools\[0\]\.function\.parameters.*uniqueItems",
        ),
        ({"tool_choice": "required"}, errors.InvalidToolChoiceError, "no tools"),
        ({"tool_choice": "maybe"}, errors.InvalidToolChoiceError, "tool_choice is 'maybe'"),
        ({"tool_choice": 5}, errors.InvalidToolChoiceError, "tool_choice is 5"),
        ({"tool_choice": {}}, errors.InvalidToolChoiceError, "tool_choice is {}"),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "f"}}},
            errors.UnsupportedToolChoiceTypeError,
            "type is 'custom'",
        ),
        ({"tool_choice": {"type": "function"}}, errors.InvalidToolChoiceError, "name is None"),
        ({"tool_choice": choose("f")}, errors.FunctionNotFoundError, "'f', but tools has no"),
        (
            {"tools": [tool("g")], "tool_choice": choose("f")},
            errors.FunctionNotFoundError,
            "'f', but tools has g",
        ),
        ({"tool_choice": {"type": "allowed_tools"}}, errors.InvalidToolChoiceError, "mode"),
        ({"tools": [tool()], "tool_choice": allow("g")}, errors.FunctionNotFoundError, "'g'"),
        (
            {"tools": [tool()], "tool_choice": allow(mode="none")},
            errors.InvalidToolChoiceError,
            "mode",
        ),
        ({"parallel_tool_calls": 1}, errors.ConfigValueError, "parallel_tool_calls is 1"),
        ({"reasoning_effort": "huge"}, errors.ConfigValueError, "reasoning_effort is 'huge'"),
        ({"enable_thinking": "no"}, errors.ConfigValueError, "enable_thinking is 'no'"),
        (
            {"chat_template_kwargs": {"enable_thinking": "no"}},
            errors.ConfigValueError,
            r"chat_template_kwargs\.enable_thinking is 'no'",
        ),
        ({"chat_template_kwargs": []}, errors.ConfigValueError, r"chat_template_kwargs is \[\]"),
        ({"audio": {}}, errors.UnsupportedFieldsError, "audio is not supported"),
        ({"functions": [{}]}, errors.UnsupportedFieldsError, "Use tools"),
        ({"function_call": {"name": "f"}}, errors.UnsupportedFieldsError, "function_call"),
        ({"modalities": ["audio"]}, errors.UnsupportedFieldsError, "modalities"),
        ({"moderation": {"model": "m"}}, errors.UnsupportedFieldsError, "moderation"),
        ({"verbosity": "low"}, errors.UnsupportedFieldsError, "verbosity"),
        ({"web_search_options": {}}, errors.UnsupportedFieldsError, "web_search_options"),
    ],
)
def test_wrong_values(fields: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        check(**fields)
    assert type(caught.value) is error


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_format_and_tools_go_together(choice: str) -> None:
    """WebLLM refuses it (CustomResponseFormatError), OpenAI leaves the choice to the model."""
    request = check(tools=[tool()], tool_choice=choice, response_format={"type": "json_object"})
    assert request.grammar is not None


def test_a_loose_tool_may_have_a_schema_that_no_grammar_can_say() -> None:
    tools = [tool(parameters=UNENFORCEABLE)]
    assert check(tools=tools).tools[0]["function"]["parameters"] == UNENFORCEABLE


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
DETAILED = {"type": "image_url", "image_url": {"url": "data:image/png;base64,", "detail": "low"}}
LOCAL = {"type": "image_url", "image_url": {"url": "file:///a.png"}}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, NOT_TEXT),
        ({"messages": [{"role": "user", "content": [DETAILED]}]}, NOT_TEXT),
        ({"messages": [{"role": "user", "content": [LOCAL]}]}, NOT_TEXT),
        (
            {"messages": [USER, {"role": "system", "content": "Be brief."}, USER]},
            errors.SystemMessageOrderError,
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": "Hello"}]},
            errors.MessageOrderError,
        ),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, errors.UnsupportedRoleError),
        ({"seed": 42.2}, errors.SeedTypeError),
        (
            {"response_format": {"type": "text", "schema": "{}"}},
            errors.InvalidResponseFormatError,
        ),
        (
            {"response_format": {"type": "json_object", "grammar": 'root ::= "a"'}},
            errors.InvalidResponseFormatGrammarError,
        ),
        ({"response_format": {"type": "grammar"}}, errors.InvalidResponseFormatGrammarError),
        (
            {"response_format": {"type": "json_object", "structural_tag": {}}},
            errors.InvalidResponseFormatStructuralTagError,
        ),
        (
            {"response_format": {"type": "structural_tag"}},
            errors.InvalidResponseFormatStructuralTagError,
        ),
        ({"tool_choice": "required"}, errors.InvalidToolChoiceError),
        ({"stream_options": {"include_usage": True}}, errors.InvalidStreamOptionsError),
    ],
)
def test_c10_chat_requests_that_are_refused(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        check(**fields)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "fields",
    [
        {
            "messages": [{"role": "system", "content": "Be brief."}, USER],
            "n": 3,
            "temperature": 1.5,
            "max_tokens": 25,
            "frequency_penalty": 0.5,
            "presence_penalty": 1.0,
            "logit_bias": {"16230": -10},
            "logprobs": True,
            "top_logprobs": 2,
        },
        {"stream": True, "n": 2, "stream_options": {"include_usage": True}},
        {"tools": [tool()], "messages": [{"role": "system", "content": "Be brief."}, USER]},
        {"response_format": {"type": "json_object", "schema": '{"type": "object"}'}},
    ],
)
def test_c10_chat_requests_that_are_taken(fields: dict[str, Any]) -> None:
    assert check(**fields).unknown_fields == ()


@pytest.mark.parametrize("request_data", [None, 5, "x", [USER]])
def test_request_must_be_an_object(request_data: Any) -> None:
    with pytest.raises(errors.ConfigValueError, match="request"):
        ChatCompletionRequest.from_dict(request_data)


def test_all_unsupported_fields_are_listed_at_once() -> None:
    with pytest.raises(errors.UnsupportedFieldsError, match="audio, functions are") as caught:
        check(functions=[{}], extra_body={"audio": {"voice": "x"}})
    assert "Use tools" in str(caught.value)
    assert "Leave such fields out" in str(caught.value)


def test_fields_without_effect_and_neutral_values_are_accepted() -> None:
    request = check(
        audio=None,
        function_call="auto",
        functions=[],
        metadata={"a": "b"},
        modalities=["text"],
        prompt_cache_key="k",
        prompt_cache_options={},
        prompt_cache_retention="24h",
        resumable={"enabled": False},
        safety_identifier="s",
        service_tier="auto",
        store=False,
        user="me",
        verbosity="medium",
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
            errors.ConfigValueError,
            r"tool_calls\[0\]",
        ),
    ],
)
def test_wrong_messages(messages: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        ChatCompletionRequest.from_dict({"messages": messages})
