"""Checks of text completion requests; what they share with chats is in test_api_sampling.py."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine import errors
from py_engine.api.completion import CompletionRequest


def check(**fields: Any) -> CompletionRequest:
    return CompletionRequest.from_dict({"prompt": "Hi", **fields})


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        ("x" * 1_000_000, ("x" * 1_000_000,)),
        ("\0\ud800", ("\0\ud800",)),
    ],
)
def test_prompts_that_are_taken(value: Any, prompts: Any) -> None:
    assert check(prompt=value).prompts == prompts


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"prompt": None}, errors.ConfigValueError, "prompt is missing"),
        ({"prompt": ""}, errors.ConfigValueError, "prompt is ''"),
        ({"prompt": []}, errors.ConfigValueError, r"prompt is \[\]"),
        ({"prompt": ["a", ""]}, errors.ConfigValueError, r"prompt\[1\] is ''"),
        ({"prompt": [1, "a"]}, errors.ConfigValueError, r"prompt is \[1, 'a'\]"),
        ({"prompt": {}}, errors.ConfigValueError, r"prompt is \{\}"),
        ({"echo": "yes"}, errors.ConfigValueError, "echo is 'yes'"),
        ({"echo": True, "logprobs": 0}, errors.UnsupportedFieldsError, "echo together"),
        ({"logprobs": -1}, errors.RangeError, "logprobs is -1"),
        ({"logprobs": 21}, errors.RangeError, "logprobs is 21"),
        ({"logprobs": 2, "top_logprobs": 3}, errors.ConfigValueError, "mean the same"),
        ({"best_of": 0}, errors.MinValueError, "best_of is 0"),
    ],
)
def test_wrong_values(fields: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        check(**fields)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"resumable": {"enabled": True}}, errors.UnsupportedFieldsError, "resumable is not"),
        ({"suffix": "end"}, errors.UnsupportedFieldsError, "suffix is not supported.*leave"),
        ({"best_of": 3}, errors.UnsupportedFieldsError, "best_of is 3 and n is 1"),
        ({"stream_options": {}}, errors.InvalidStreamOptionsError, "stream_options"),
        ({"n": 0}, errors.MinValueError, "n is 0"),
        ({"seed": 1.5}, errors.SeedTypeError, r"seed is 1\.5"),
    ],
)
def test_c10_completions_that_are_refused(
    fields: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named) as caught:
        check(**fields)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("fields", "top"),
    [
        ({}, None),
        ({"logprobs": None}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 4}, 4),
        ({"logprobs": 0}, 0),
        ({"logprobs": 5}, 5),
        ({"logprobs": 5, "top_logprobs": 5}, 5),
    ],
)
def test_logprobs_are_openais_number_or_webllms_flag(
    fields: dict[str, Any], top: int | None
) -> None:
    assert check(**fields).top_logprobs == top


def test_best_of_may_be_n() -> None:
    assert check(best_of=3, n=3).n == 3


def test_echo_streams_and_choices_are_taken() -> None:
    request = check(echo=True, stream=True, n=2)
    assert (request.echo, request.stream, request.n) == (True, True, 2)


def test_unknown_fields_are_named_for_a_warning() -> None:
    assert check(user="me", messages=[], zzz=None).unknown_fields == ("messages", "zzz")
