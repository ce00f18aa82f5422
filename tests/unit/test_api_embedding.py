"""Checks of embedding requests, and their responses."""

from __future__ import annotations

import base64
import struct
from array import array
from typing import Any

import pytest

from py_engine import errors
from py_engine.api.embedding import EmbeddingRequest
from py_engine.api.embedding_responses import embedding_response
from py_engine.api.objects import ApiObject
from py_engine.generation import Statistics


def check(**fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest.from_dict(fields)


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("one", ("one",)),
        (["one"], ("one",)),
        (["one", "two"], ("one", "two")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_c10_embedding_inputs_that_are_taken(value: Any, inputs: Any) -> None:
    assert check(input=value).inputs == inputs


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"input": ""}, errors.EmbeddingInputEmptyError, "input is ''"),
        ({"input": []}, errors.EmbeddingInputEmptyError, r"input is \[\]"),
        ({"input": ["one", ""]}, errors.EmbeddingInputEmptyError, r"input\[1\] is ''"),
        ({"input": [[1], []]}, errors.EmbeddingInputEmptyError, r"input\[1\] is \[\]"),
        (
            {"input": "one", "encoding_format": "base65"},
            errors.EmbeddingUnsupportedEncodingFormatError,
            "encoding_format is 'base65'",
        ),
        ({"input": "one", "dimensions": 0}, errors.MinValueError, "dimensions is 0"),
        ({}, errors.ConfigValueError, "input is missing"),
    ],
)
def test_c10_embedding_inputs_that_are_refused(
    fields: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named) as caught:
        check(**fields)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"input": 5}, errors.ConfigValueError, "input is 5"),
        ({"input": [True]}, errors.ConfigValueError, r"input is \[True\]"),
        ({"input": ["one", 2]}, errors.ConfigValueError, "input is"),
        ({"input": [1, "two"]}, errors.ConfigValueError, "input is"),
        ({"input": [1, -2]}, errors.ConfigValueError, "input is"),
        ({"input": [1.5]}, errors.ConfigValueError, "input is"),
        ({"input": [[1], ["two"]]}, errors.ConfigValueError, "input is"),
        ({"input": [{}]}, errors.ConfigValueError, "input is"),
        ({"input": float("nan")}, errors.ConfigValueError, r"request\.input is nan"),
        ({"dimensions": 1.5}, errors.ConfigValueError, r"dimensions is 1\.5"),
        ({"dimensions": 2**31}, errors.RangeError, "dimensions is 2147483648"),
        ({"model": 5}, errors.ConfigValueError, "model is 5"),
        (
            {"encoding_format": 5},
            errors.EmbeddingUnsupportedEncodingFormatError,
            "encoding_format is 5",
        ),
    ],
)
def test_wrong_values(fields: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        check(**{"input": "one", **fields})
    assert type(caught.value) is error


def test_all_fields_are_read() -> None:
    request = check(input="a", model="m", encoding_format="base64", dimensions=3, user="me", x=1)
    assert request == EmbeddingRequest(
        inputs=("a",), model="m", encoding_format="base64", dimensions=3, unknown_fields=("x",)
    )


def test_null_means_absent() -> None:
    names = ("model", "encoding_format", "dimensions", "user")
    assert check(input="a", **dict.fromkeys(names)) == check(input="a")


def test_floats_are_32_bit_values_in_order() -> None:
    vectors = [array("f", (0.5, -2.0)), array("f", (1.0, 0.0))]
    response = embedding_response("m", vectors, Statistics(prefilled_tokens=7), "float")
    assert isinstance(response, ApiObject)
    assert [(item.index, item.embedding) for item in response.data] == [
        (0, [0.5, -2.0]),
        (1, [1.0, 0.0]),
    ]
    assert (response.usage.prompt_tokens, response.usage.total_tokens) == (7, 7)


def test_base64_is_little_endian_f32() -> None:
    response = embedding_response("m", [array("f", (0.5, -2.0))], Statistics(), "base64")
    data = base64.b64decode(response.data[0].embedding)
    assert struct.unpack("<2f", data) == (0.5, -2.0)
