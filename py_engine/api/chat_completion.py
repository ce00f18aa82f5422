"""Chat completion requests: OpenAI's fields with WebLLM's errors, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from py_engine.api.messages import checked_messages
from py_engine.api.objects import plain
from py_engine.errors import (
    ConfigValueError,
    InvalidStreamOptionsError,
    MinValueError,
    NonNegativeError,
    RangeError,
    SeedTypeError,
    StreamingCountError,
    UnsupportedFieldsError,
)
from py_engine.json_fields import JsonFields, shown

_FIELDS = frozenset(
    (
        "messages",
        "model",
        "stream",
        "stream_options",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "extra_body",
    )
)

# Fields of OpenAI and WebLLM that change the answer and are not supported, with the values that
# ask for nothing. None asks for nothing everywhere.
_NEUTRAL_VALUES: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "enable_latency_breakdown": (False,),
    "enable_thinking": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "resumable": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}

# Fields that a server uses for its own purposes; an engine in a page has none.
_WITHOUT_EFFECT = frozenset(
    (
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    )
)

_KNOWN_FIELDS = _FIELDS | _WITHOUT_EFFECT | _NEUTRAL_VALUES.keys()


@dataclass(frozen=True)
class ChatCompletionRequest:
    """A checked request. None stands for the model's own default; `seed` None for a new one."""

    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    unknown_fields: tuple[str, ...] = ()

    @staticmethod
    def from_dict(request: Mapping[str, Any]) -> ChatCompletionRequest:
        """Check a request. `unknown_fields` are those that neither OpenAI nor WebLLM has.

        Errors: RequestError's classes, each naming the field, its value and what it must be.
        """
        fields = JsonFields(plain(request), "request", error=ConfigValueError)
        _check_supported(fields)
        checked = ChatCompletionRequest(
            messages=checked_messages(fields.value("messages")),
            model=fields.string("model") if "model" in fields else None,
            stream=fields.boolean("stream", False),
            include_usage=_include_usage(fields),
            n=_positive(fields, "n") or 1,
            max_tokens=_max_tokens(fields),
            temperature=_temperature(fields),
            top_p=_top_p(fields),
            seed=_seed(fields),
            stop=_stop(fields),
            unknown_fields=tuple(name for name in fields.data if name not in _KNOWN_FIELDS),
        )
        if checked.stream and checked.n > 1:
            raise StreamingCountError(
                f"request: n is {checked.n} and stream is true, but a stream has one choice. "
                "Leave n out, or make one request for each choice."
            )
        return checked


def _check_supported(fields: JsonFields) -> None:
    given = [name for name, value in fields.data.items() if _asks_for_more(name, value)]
    extra = fields.object("extra_body").data
    given += [f"extra_body.{name}" for name, value in extra.items() if _asks_for_more(name, value)]
    if given:
        raise UnsupportedFieldsError(
            f"request: {', '.join(given)} {'is' if len(given) == 1 else 'are'} not supported. "
            "Leave such fields out, or set them to null."
        )


def _asks_for_more(name: str, value: Any) -> bool:
    if name not in _NEUTRAL_VALUES or value is None:
        return False
    return not any(value == neutral for neutral in _NEUTRAL_VALUES[name])


def _include_usage(fields: JsonFields) -> bool:
    if "stream_options" not in fields:
        return False
    if not fields.value("stream"):
        raise InvalidStreamOptionsError(
            "request: stream_options is given, but stream is not true. Set stream, or leave "
            "stream_options out."
        )
    return fields.object("stream_options").boolean("include_usage", False)


def _positive(fields: JsonFields, name: str) -> int | None:
    if name not in fields:
        return None
    value = fields.integer(name)
    if value < 1:
        raise MinValueError(f"request: {name} is {value}, but must be at least 1.")
    return value


def _max_tokens(fields: JsonFields) -> int | None:
    old, new = _positive(fields, "max_tokens"), _positive(fields, "max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise ConfigValueError(
            f"request: max_tokens is {old} and max_completion_tokens is {new}, but they mean the "
            "same. Leave one out."
        )
    return old if new is None else new


def _temperature(fields: JsonFields) -> float | None:
    if "temperature" not in fields:
        return None
    value = fields.number("temperature")
    if value < 0:
        raise NonNegativeError(
            f"request: temperature is {value}, but must be 0 (always the likeliest token) or more."
        )
    return value


def _top_p(fields: JsonFields) -> float | None:
    if "top_p" not in fields:
        return None
    value = fields.number("top_p")
    if not 0 < value <= 1:
        raise RangeError(f"request: top_p is {value}, but must be above 0 and at most 1.")
    return value


def _seed(fields: JsonFields) -> int | None:
    value = fields.value("seed")
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SeedTypeError(f"request: seed is {shown(value)}, but must be an integer.")
    return value


def _stop(fields: JsonFields) -> tuple[str, ...]:
    value = fields.value("stop")
    strings = (value,) if isinstance(value, str) else fields.strings("stop", ())
    if not all(strings):
        raise ConfigValueError(
            "request: stop has an empty string, which would end every reply at once. Leave it out."
        )
    return strings
