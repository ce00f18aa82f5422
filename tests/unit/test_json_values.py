"""Plain copies of JSON values, and how error messages show a value."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from py_engine import errors
from py_engine.api.objects import ApiObject
from py_engine.json_values import MAX_DEPTH, is_too_deep, jsonable, shown


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_jsonable_makes_plain_json() -> None:
    value = {
        "a": (1, 2.5, None, True),
        "logit_bias": {7: -100},
        "o": ApiObject({"x": [{}]}),
        "m": MappingProxyType({"y": "z"}),
    }
    plain = jsonable(value, "request")
    assert plain == {
        "a": [1, 2.5, None, True],
        "logit_bias": {"7": -100},
        "o": {"x": [{}]},
        "m": {"y": "z"},
    }
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"messages": [{"content": {1}}]}, r"request\.messages\[0\]\.content is of type set"),
        ({"messages": dict}, r"request\.messages is of type type"),
        ({"temperature": float("nan")}, r"request\.temperature is nan"),
        ({"top_p": float("inf")}, r"request\.top_p is inf"),
        ({(1, 2): 3}, r"request has the key \(1, 2\)"),
        ({"tools": {True: 3}}, r"request\.tools has the key True"),
        ({"tools": nested(MAX_DEPTH)}, r"request\.tools\[0\].*nested too deeply: at most 100"),
        ({"x" * 1000: {1}}, r"request\.x+\.\.\. is of type set"),
    ],
)
def test_jsonable_names_what_json_cannot_carry(value: object, text: str) -> None:
    with pytest.raises(errors.ConfigValueError, match=text):
        jsonable(value, "request")


def test_jsonable_takes_the_deepest_that_is_allowed() -> None:
    assert jsonable(nested(MAX_DEPTH), "request") == nested(MAX_DEPTH)


def test_jsonable_refuses_a_list_that_holds_itself() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(errors.ConfigValueError, match="too deeply"):
        jsonable(endless, "request")


def test_shown_is_short() -> None:
    assert shown("a\ud800") == "'a\\ud800'"
    assert len(shown("x" * 1_000_000)) == 60
    assert shown(10**5000) == "an integer of thousands of digits"


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("1", 0),
        ("[]", 1),
        ('[{"a": [1]}, [2]]', 3),
        ("[" * 100 + "]" * 100, 100),
        ("[]" * 1000, 1),
        ('["' + "[" * 1000 + '"]', 1),
        (r'["\"[[", "\\", "[["]', 1),
        ('{"a": "' + "\\\\" * 3 + '", "b": [[]]}', 3),
        ("[" * 1000, 1000),
    ],
)
def test_depth_of_json_text(text: str, depth: int) -> None:
    assert not is_too_deep(text, depth)
    assert depth == 0 or is_too_deep(text, depth - 1)
