"""What chat and text completion requests have in common: sampling fields and response_format."""

from __future__ import annotations

import json
from typing import Any

import pytest

from py_engine import errors
from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.completion import CompletionRequest
from py_engine.api.sampling import SamplingFields, check_token_ids
from py_engine.grammar.spec import GrammarSpec

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"prompt": "Hi"}


@pytest.fixture(params=["chat", "completion"])
def check(request: pytest.FixtureRequest) -> Any:
    """A function from fields to a checked request, for each endpoint."""

    def checked(**fields: Any) -> SamplingFields:
        if request.param == "chat":
            return ChatCompletionRequest.from_dict({**CHAT, **fields})
        return CompletionRequest.from_dict({**TEXT, **fields})

    return checked


def test_all_fields_are_read(check: Any) -> None:
    fields: dict[str, Any] = {
        "model": "m",
        "stream": True,
        "n": 3,
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 40,
        "min_p": 0.05,
        "seed": 7,
        "presence_penalty": -2.0,
        "frequency_penalty": 2.0,
        "repetition_penalty": 1.1,
        "ignore_eos": True,
        "enable_latency_breakdown": True,
    }
    checked = check(
        **fields,
        stream_options={"include_usage": True},
        logit_bias={"5": -100, 7: 3.5},
        logprobs=True,
        top_logprobs=20,
        stop=["a", "b"],
    )
    assert {name: getattr(checked, name) for name in fields} == fields
    assert checked.include_usage
    assert checked.logit_bias == {5: -100.0, 7: 3.5}
    assert checked.top_logprobs == 20
    assert checked.stop == ("a", "b")
    assert checked.unknown_fields == ()


def test_null_and_neutral_values_mean_absent(check: Any) -> None:
    names = ["model", "stream", "stream_options", "n", "max_tokens", "temperature", "top_p"]
    names += ["top_k", "min_p", "seed", "stop", "logit_bias", "logprobs", "top_logprobs"]
    names += ["presence_penalty", "frequency_penalty", "repetition_penalty", "ignore_eos"]
    names += ["response_format", "extra_body", "enable_latency_breakdown"]
    assert check(**dict.fromkeys(names)) == check()
    neutral = {"stream": False, "n": 1, "stop": [], "logit_bias": {}, "logprobs": False}
    assert check(**neutral, response_format={"type": "text"}, extra_body={}) == check()


def test_extra_body_is_merged_and_wins(check: Any) -> None:
    checked = check(extra_body={"top_k": 5, "zzz": 1, "seed": 3}, seed=2)
    assert (checked.top_k, checked.seed, checked.unknown_fields) == (5, 3, ("zzz",))


@pytest.mark.parametrize("name", ["messages", "prompt", "input", "model", "stream", "extra_body"])
def test_extra_body_does_not_replace_the_request_itself(check: Any, name: str) -> None:
    with pytest.raises(errors.ConfigValueError, match=rf"extra_body\.{name}"):
        check(extra_body={name: {}})


def test_whole_floats_of_javascript_are_integers(check: Any) -> None:
    checked = check(max_tokens=5.0, seed=7.0, n=2.0, top_k=3.0)
    assert (checked.max_tokens, checked.seed, checked.n, checked.top_k) == (5, 7, 2, 3)


@pytest.mark.parametrize(
    ("seed", "taken"),
    [(-1, 2**64 - 1), (2**64, 0), (-(2**80) + 5, 5), (10**400, 10**400 % 2**64), (0, 0)],
)
def test_seed_is_taken_modulo_2_64(check: Any, seed: int, taken: int) -> None:
    assert check(seed=seed).seed == taken


def test_top_k_0_and_minus_1_are_all_tokens(check: Any) -> None:
    assert check(top_k=-1).top_k == check(top_k=0).top_k == 0


@pytest.mark.parametrize(
    ("given", "presence", "frequency"),
    [
        ({"presence_penalty": 0.5}, 0.5, 0.0),
        ({"frequency_penalty": 0.5}, 0.0, 0.5),
        ({}, None, None),
    ],
)
def test_c10_one_of_presence_and_frequency_sets_the_other_to_zero(
    check: Any, given: dict[str, float], presence: float | None, frequency: float | None
) -> None:
    checked = check(**given)
    assert (checked.presence_penalty, checked.frequency_penalty) == (presence, frequency)


def test_c10_logprobs_without_top_logprobs_asks_for_no_likeliest_tokens(check: Any) -> None:
    assert check(logprobs=True).top_logprobs == 0


def test_c10_top_logprobs_are_kept(check: Any) -> None:
    assert check(logprobs=True, top_logprobs=5).top_logprobs == 5


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"logit_bias": {"5": 101}}, errors.RangeError, r"logit_bias\.5 is 101"),
        ({"logit_bias": {"five": 1}}, errors.InvalidNumberStringError, "key 'five'"),
        ({"logprobs": True, "top_logprobs": 21}, errors.RangeError, "top_logprobs is 21"),
        ({"top_logprobs": 2}, errors.DependencyError, "top_logprobs is 2"),
        ({"frequency_penalty": 2.1}, errors.RangeError, r"frequency_penalty is 2\.1"),
        ({"repetition_penalty": 0}, errors.MinValueError, "repetition_penalty is 0"),
    ],
)
def test_c10_generation_config_that_is_refused(
    check: Any, fields: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named) as caught:
        check(**fields)
    assert type(caught.value) is error


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"temperature": -0.1}, errors.NonNegativeError, r"temperature is -0\.1"),
    ({"temperature": 1e30}, errors.RangeError, r"temperature is 1e\+30"),
    ({"temperature": 10**400}, errors.RangeError, "temperature is 1000"),
    ({"temperature": "hot"}, errors.ConfigValueError, "temperature is 'hot'"),
    ({"temperature": True}, errors.ConfigValueError, "temperature is True"),
    ({"temperature": float("nan")}, errors.ConfigValueError, "temperature is nan"),
    ({"temperature": float("inf")}, errors.ConfigValueError, "temperature is inf"),
    ({"top_p": 0}, errors.RangeError, "top_p is 0"),
    ({"top_p": 1.01}, errors.RangeError, r"top_p is 1\.01"),
    ({"top_p": [1]}, errors.ConfigValueError, r"top_p is \[1\]"),
    ({"top_k": -2}, errors.RangeError, "top_k is -2"),
    ({"top_k": 1.5}, errors.ConfigValueError, r"top_k is 1\.5"),
    ({"min_p": -0.1}, errors.RangeError, "min_p"),
    ({"min_p": 1.1}, errors.RangeError, "min_p"),
    ({"presence_penalty": -2.5}, errors.RangeError, r"presence_penalty is -2\.5"),
    ({"repetition_penalty": -1}, errors.MinValueError, "repetition_penalty is -1"),
    ({"repetition_penalty": 1e9}, errors.RangeError, "repetition_penalty"),
    ({"max_tokens": 0}, errors.MinValueError, "max_tokens is 0"),
    ({"max_tokens": -1}, errors.MinValueError, "max_tokens is -1"),
    ({"max_tokens": 1.5}, errors.ConfigValueError, r"max_tokens is 1\.5"),
    ({"n": 0}, errors.MinValueError, "n is 0"),
    ({"n": 129}, errors.RangeError, "n is 129"),
    ({"n": "2"}, errors.ConfigValueError, "n is '2'"),
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
    ({"ignore_eos": 1}, errors.ConfigValueError, "ignore_eos is 1"),
    ({"extra_body": 5}, errors.ConfigValueError, "extra_body is 5"),
    ({"logit_bias": [1]}, errors.ConfigValueError, "logit_bias is"),
    ({"logit_bias": {"-1": 1}}, errors.InvalidNumberStringError, "key '-1'"),
    ({"logit_bias": {"12x": 1}}, errors.InvalidNumberStringError, "key '12x'"),
    ({"logit_bias": {"9" * 5000: 1}}, errors.InvalidNumberStringError, "key '999"),
    ({"logit_bias": {"٣": 1}}, errors.InvalidNumberStringError, "key"),
    ({"logit_bias": {"1": "a"}}, errors.ConfigValueError, r"logit_bias\.1 is 'a'"),
    ({"logit_bias": {"1": True}}, errors.ConfigValueError, r"logit_bias\.1 is True"),
    ({"logit_bias": {"1": None}}, errors.ConfigValueError, r"logit_bias\.1 is missing"),
    ({"logit_bias": {"1": 10**400}}, errors.RangeError, r"logit_bias\.1 is 1000"),
    ({"logit_bias": {"1": float("nan")}}, errors.ConfigValueError, r"logit_bias\.1 is nan"),
    ({"logprobs": True, "top_logprobs": -1}, errors.RangeError, "top_logprobs is -1"),
    ({"logprobs": "yes"}, errors.ConfigValueError, "logprobs is 'yes'"),
]


@pytest.mark.parametrize(("fields", "error", "named"), WRONG)
def test_wrong_values(
    check: Any, fields: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named) as caught:
        check(**fields)
    assert type(caught.value) is error


def test_huge_logit_bias_is_taken_as_long_as_its_ids_are_in_the_vocabulary(check: Any) -> None:
    bias = check(logit_bias={str(i): 1 for i in range(200_000)}).logit_bias
    check_token_ids(bias, 200_000, "logit_bias")
    with pytest.raises(errors.RangeError, match=r"logit_bias has the token id 1000, .* 0 to 999"):
        check_token_ids(bias, 1000, "logit_bias")


def test_long_strings_with_nul_and_half_surrogates_are_taken(check: Any) -> None:
    stop = ("x" * 1_000_000, "\0", "\ud800")
    assert check(stop=list(stop)).stop == stop


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TAG = {"type": "structural_tag", "format": {"type": "any_text"}}


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ({"type": "json_object"}, "json", ""),
        ({"type": "json_object", "schema": None}, "json", ""),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "json", ""),
        ({"type": "grammar", "grammar": 'root ::= "a"'}, "ebnf", 'root ::= "a"'),
        ({"type": "regex", "regex": "a+"}, "regex", "a+"),
        ({"type": "regex", "pattern": "a+"}, "regex", "a+"),
        ({"type": "structural_tag", "structural_tag": TAG}, "structural_tag", json.dumps(TAG)),
        (
            {"type": "structural_tag", "structural_tag": json.dumps(TAG)},
            "structural_tag",
            json.dumps(TAG),
        ),
    ],
)
def test_response_format_names_a_grammar(
    check: Any, value: dict[str, Any], kind: str, text: str
) -> None:
    checked = check(response_format=value)
    assert (checked.grammar.kind, checked.grammar.text) == (kind, text)
    assert checked.schema_to_validate is None


@pytest.mark.parametrize(
    ("value", "closed"),
    [
        ({"type": "json_object", "schema": json.dumps(SCHEMA)}, True),
        ({"type": "json_object", "schema": SCHEMA}, True),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, False),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
            True,
        ),
    ],
)
def test_response_format_takes_a_schema_in_webllms_and_openais_form(
    check: Any, value: dict[str, Any], closed: bool
) -> None:
    grammar = check(response_format=value).grammar
    assert isinstance(grammar, GrammarSpec)
    assert (grammar.kind, grammar.strict) == ("json_schema", closed)
    assert json.loads(grammar.text) == SCHEMA


def test_what_the_grammar_cannot_say_is_validated_afterwards(check: Any) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    loose = check(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    )
    assert json.loads(loose.schema_to_validate) == schema
    with pytest.raises(errors.InvalidResponseFormatError, match="uniqueItems"):
        strict = {"name": "x", "schema": schema, "strict": True}
        check(response_format={"type": "json_schema", "json_schema": strict})


GRAMMAR_ERROR = errors.InvalidResponseFormatGrammarError
TAG_ERROR = errors.InvalidResponseFormatStructuralTagError
WRONG_FORMATS: list[tuple[Any, type[Exception], str]] = [
    ("json", errors.InvalidResponseFormatError, "response_format is 'json'"),
    ({}, errors.InvalidResponseFormatError, "type is None"),
    ({"type": "xml"}, errors.InvalidResponseFormatError, "type is 'xml'.*json_schema"),
    ({"type": ["text"]}, errors.InvalidResponseFormatError, "type is"),
    ({"type": "json_object", "schema": ""}, errors.InvalidResponseFormatError, "schema is ''"),
    ({"type": "json_object", "schema": "{"}, errors.InvalidResponseFormatError, "must be JSON"),
    (
        {"type": "json_object", "schema": "[" * 100_000},
        errors.InvalidResponseFormatError,
        "schema is nested too deeply",
    ),
    ({"type": "json_object", "schema": 5}, errors.InvalidResponseFormatError, "schema"),
    ({"type": "json_schema"}, errors.InvalidResponseFormatError, "json_schema is None"),
    (
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        errors.InvalidResponseFormatError,
        "name is missing",
    ),
    (
        {"type": "json_schema", "json_schema": {"name": "a b"}},
        errors.InvalidResponseFormatError,
        "name is 'a b'.*64",
    ),
    (
        {"type": "json_schema", "json_schema": {"name": "x", "strict": 1}},
        errors.InvalidResponseFormatError,
        "strict is 1",
    ),
    ({"type": "grammar", "grammar": ""}, GRAMMAR_ERROR, "grammar is ''"),
    ({"type": "grammar", "grammar": {}}, GRAMMAR_ERROR, "grammar is {}"),
    ({"type": "grammar", "grammar": "\ud800"}, GRAMMAR_ERROR, "surrogate"),
    ({"type": "regex"}, errors.InvalidResponseFormatError, "regex is None"),
    (
        {"type": "regex", "regex": "a", "pattern": "a"},
        errors.InvalidResponseFormatError,
        "both regex and pattern",
    ),
    ({"type": "text", "regex": "a"}, errors.InvalidResponseFormatError, "regex is given"),
    ({"type": "structural_tag", "structural_tag": "{"}, TAG_ERROR, "must be JSON"),
    ({"type": "structural_tag", "structural_tag": "[]"}, TAG_ERROR, "structural_tag is"),
]


@pytest.mark.parametrize(("value", "error", "named"), WRONG_FORMATS)
def test_wrong_response_formats(check: Any, value: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        check(response_format=value)
    assert type(caught.value) is error
