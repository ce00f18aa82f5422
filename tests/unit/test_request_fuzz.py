"""Any request is checked or refused with an error that names a field; nothing else comes out.

Property-based: hypothesis makes up requests, shrinks what fails, and is derandomised so that a run
repeats itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.completion import CompletionRequest
from py_engine.api.embedding import EmbeddingRequest
from py_engine.api.known_fields import (
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    EMBEDDING_FIELDS,
    WITHOUT_EFFECT,
    KnownFields,
)
from py_engine.api.messages import checked_messages
from py_engine.errors import MLCError

fuzz = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Endpoint:
    """One endpoint's check, its fields, and a request that it accepts."""

    check: Callable[[Any], Any]
    known: KnownFields
    valid: dict[str, Any]

    @property
    def fields(self) -> list[str]:
        return sorted(self.known.supported | self.known.refused.keys() | WITHOUT_EFFECT)


MESSAGE = {"role": "user", "content": "Hi"}
ENDPOINTS = {
    "chat": Endpoint(ChatCompletionRequest.from_dict, CHAT_FIELDS, {"messages": [MESSAGE]}),
    "completion": Endpoint(CompletionRequest.from_dict, COMPLETION_FIELDS, {"prompt": "Hi"}),
    "embedding": Endpoint(EmbeddingRequest.from_dict, EMBEDDING_FIELDS, {"input": "Hi"}),
}

# Words that requests are made of, so that made-up values come near to valid ones.
WORDS = """
    text json_object json_schema grammar regex structural_tag type schema name strict function
    functions parameters description object string properties required auto none allowed_tools
    tools mode role user assistant system tool developer content messages include_usage enabled
    enable_thinking tool_calls tool_call_id id arguments image_url input_audio refusal 0 1 42 -1
    $ref pattern items
""".split()

texts = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(), max_size=12),  # half surrogates and NUL among them
    st.sampled_from(["\ud800", "\0", "x" * 10_000, "", "{", '{"type": "object"}']),
)
numbers = st.one_of(
    st.integers(-3, 30),
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(2**70), 2**53 + 1, 1e308, -0.0, math.nan, math.inf]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


def outcome(endpoint: Endpoint, request: Any) -> str:
    """Return the error's text, or "" for a checked request; anything else is a failure."""
    try:
        endpoint.check(request)
    except MLCError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
@given(data=st.data())
@fuzz
def test_any_value_of_any_field_is_taken_or_refused_by_name(
    endpoint: Endpoint, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(endpoint.fields))
    value = data.draw(values)
    text = outcome(endpoint, {**endpoint.valid, name: value})
    inner = value if name == "extra_body" and isinstance(value, dict) else {}
    assert not text or any(each in text for each in (name, *inner) if each in endpoint.fields)
    assert len(text) < 1500


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
@given(data=st.data())
@fuzz
def test_any_request_is_taken_or_refused(endpoint: Endpoint, data: st.DataObject) -> None:
    names = st.one_of(st.sampled_from(endpoint.fields), texts)
    request = {**endpoint.valid, **data.draw(st.dictionaries(names, values, max_size=5))}
    outcome(endpoint, request)
    outcome(endpoint, data.draw(values))


def near(valid: Any) -> st.SearchStrategy[Any]:
    """Return values like `valid`, with parts left out, doubled or replaced."""
    if isinstance(valid, dict):
        parts = {key: st.one_of(near(item), near(item), values) for key, item in valid.items()}
        return st.fixed_dictionaries({}, optional=parts)
    if isinstance(valid, list):
        return st.one_of(
            st.tuples(*map(near, valid)).map(list), st.lists(near(valid[0]), max_size=3)
        )
    return st.one_of(st.just(valid), st.just(valid), scalars)


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^a+$"}, "b": {"enum": [1, None, "x"]}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
}
GRAMMAR = 'root ::= "a"'
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NEARLY_VALID: list[tuple[str, str, Any]] = [
    ("chat", "tools", [TOOL]),
    ("chat", "tool_choice", {"type": "function", "function": {"name": "f"}}),
    (
        "chat",
        "tool_choice",
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        },
    ),
    (
        "chat",
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    ),
    ("chat", "response_format", {"type": "grammar", "grammar": GRAMMAR}),
    ("completion", "response_format", {"type": "regex", "regex": "a+", "pattern": "a+"}),
    ("chat", "stream_options", {"include_usage": True}),
    ("completion", "logit_bias", {"5": 1.5, "42": -100}),
    ("completion", "prompt", [[1, 2], [3]]),
    ("completion", "prompt", ["a", "b"]),
    ("embedding", "input", [1, 2]),
    ("chat", "chat_template_kwargs", {"enable_thinking": False, "messages": 1}),
    (
        "chat",
        "messages",
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ann"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "4", "tool_call_id": "1"},
        ],
    ),
]


@pytest.mark.parametrize(("endpoint", "name", "valid"), NEARLY_VALID)
@given(data=st.data())
@fuzz
def test_values_that_are_nearly_valid_are_taken_or_refused_by_name(
    endpoint: str, name: str, valid: Any, data: st.DataObject
) -> None:
    request = {**ENDPOINTS[endpoint].valid, name: data.draw(near(valid))}
    if name == "tool_choice":
        request["tools"] = [TOOL]
    if name == "stream_options":
        request["stream"] = True
    text = outcome(ENDPOINTS[endpoint], request)
    assert not text or name in text


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), max_size=5), texts)
@fuzz
def test_messages_stay_what_they_are(turns: list[tuple[str, str]], last: str) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    messages.append({"role": "user", "content": last})
    checked = checked_messages(json.loads(json.dumps(messages)))
    assert checked == messages
    assert checked_messages(checked) == checked
