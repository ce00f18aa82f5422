"""What chat and text completion requests have in common: how tokens are drawn, and how many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from py_engine.api.drafts import draft_fields
from py_engine.api.numbers import integer, number, whole
from py_engine.api.response_format import response_format
from py_engine.errors import (
    ConfigValueError,
    DependencyError,
    InvalidNumberStringError,
    InvalidStreamOptionsError,
    RangeError,
    SeedTypeError,
)
from py_engine.grammar.spec import GrammarSpec
from py_engine.json_fields import JsonFields
from py_engine.json_values import shown

MAX_LOGIT_BIAS = 100

_TOKEN_ID = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, kw_only=True)
class SamplingFields:
    """Checked fields of a request. None stands for the model's own default.

    `seed` (None: a new one) is taken modulo 2**64. `logit_bias` is by token id. `top_logprobs` is
    None where no log-probabilities are asked for. `stop` are strings, none of them empty.
    `grammar` is what `response_format` asks for; `schema_to_validate` is the JSON Schema that a
    complete reply must be checked against, because the grammar does not say all of it.
    `draft_tokens` are guessed at a time, from the prompt, the reply and its `prediction`.
    `unknown_fields` are those that neither OpenAI nor WebLLM has.
    """

    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    enable_latency_breakdown: bool = False
    grammar: GrammarSpec | None = None
    schema_to_validate: str | None = None
    draft_tokens: int = 0
    prediction: str = ""
    unknown_fields: tuple[str, ...] = ()


def sampling_fields(fields: JsonFields) -> dict[str, Any]:
    """Return the SamplingFields of a request, less `top_logprobs` and `unknown_fields`.

    Errors: RequestError's classes, each naming the field, its value and what it must be.
    """
    grammar, schema = response_format(fields)
    return {
        "model": fields.string("model") if "model" in fields else None,
        "stream": fields.boolean("stream", False),
        "include_usage": _include_usage(fields),
        "n": integer(fields, "n") or 1,
        "max_tokens": _max_tokens(fields),
        "temperature": number(fields, "temperature"),
        "top_p": number(fields, "top_p"),
        "top_k": _top_k(fields),
        "min_p": number(fields, "min_p"),
        "seed": _seed(fields),
        **_penalties(fields),
        "logit_bias": _logit_bias(fields),
        "stop": _stop(fields),
        "ignore_eos": fields.boolean("ignore_eos", False),
        "enable_latency_breakdown": fields.boolean("enable_latency_breakdown", False),
        "grammar": grammar,
        "schema_to_validate": schema,
        **draft_fields(fields),
    }


def top_logprobs(fields: JsonFields) -> int | None:
    """Return how many likeliest tokens `logprobs` true and `top_logprobs` ask for, or None."""
    wanted, top = fields.boolean("logprobs", False), integer(fields, "top_logprobs")
    if top and not wanted:
        raise DependencyError(
            f"{fields.where('top_logprobs')} is {top}, but logprobs is not true. Set logprobs, or "
            "leave top_logprobs out."
        )
    return (top or 0) if wanted else None


def check_token_ids(token_ids: Iterable[int], vocab_size: int, where: str) -> None:
    """Raise RangeError unless all ids are in the model's vocabulary; `where` names the field."""
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise RangeError(
                f"{where} has the token id {shown(token_id)}, but the model's token ids are 0 to "
                f"{vocab_size - 1}."
            )


def _include_usage(fields: JsonFields) -> bool:
    if "stream_options" not in fields:
        return False
    if not fields.value("stream"):
        raise InvalidStreamOptionsError(
            "request: stream_options is given, but stream is not true. Set stream, or leave "
            "stream_options out."
        )
    return fields.object("stream_options").boolean("include_usage", False)


def _max_tokens(fields: JsonFields) -> int | None:
    old, new = integer(fields, "max_tokens"), integer(fields, "max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise ConfigValueError(
            f"request: max_tokens is {old} and max_completion_tokens is {new}, but they mean the "
            "same. Leave one out."
        )
    return old if new is None else new


def _top_k(fields: JsonFields) -> int | None:
    value = integer(fields, "top_k")
    return None if value is None else max(value, 0)


def _penalties(fields: JsonFields) -> dict[str, float | None]:
    """Return the penalties; of presence and frequency, one that is given alone leaves 0 to both."""
    presence, frequency = number(fields, "presence_penalty"), number(fields, "frequency_penalty")
    if presence is None and frequency is not None:
        presence = 0.0
    if frequency is None and presence is not None:
        frequency = 0.0
    return {
        "presence_penalty": presence,
        "frequency_penalty": frequency,
        "repetition_penalty": number(fields, "repetition_penalty"),
    }


def _seed(fields: JsonFields) -> int | None:
    value = fields.value("seed")
    if value is None:
        return None
    seed = whole(value)
    if seed is None:
        raise SeedTypeError(f"request: seed is {shown(value)}, but must be an integer.")
    return seed % 2**64


def _logit_bias(fields: JsonFields) -> dict[int, float]:
    bias = fields.object("logit_bias")
    return {_token_id(bias, key): _bias(bias, key) for key in bias.data}


def _token_id(bias: JsonFields, key: str) -> int:
    if not _TOKEN_ID.fullmatch(key):
        raise InvalidNumberStringError(
            f"request: logit_bias has the key {shown(key)}, but its keys must be token ids such as "
            '"42".'
        )
    return int(key)


def _bias(bias: JsonFields, key: str) -> float:
    value = bias.value(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bias.invalid(key, "a number from -100 to 100")
    if abs(value) > MAX_LOGIT_BIAS:
        raise RangeError(
            f"{bias.where(key)} is {shown(value)}, but must be a number from -100 to 100."
        )
    return float(value)


def _stop(fields: JsonFields) -> tuple[str, ...]:
    value = fields.value("stop")
    strings = (value,) if isinstance(value, str) else fields.strings("stop", ())
    if not all(strings):
        raise ConfigValueError(
            "request: stop has an empty string, which would end every reply at once. Leave it out."
        )
    return strings
