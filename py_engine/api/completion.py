"""Text completion requests: OpenAI's fields with WebLLM's errors, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from py_engine.api.known_fields import COMPLETION_FIELDS
from py_engine.api.numbers import integer
from py_engine.api.sampling import SamplingFields, sampling_fields, top_logprobs
from py_engine.api.texts import TextOrIds, texts_or_ids
from py_engine.errors import ConfigValueError, UnsupportedFieldsError
from py_engine.json_fields import JsonFields
from py_engine.json_values import shown


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(SamplingFields):
    """A checked request. Each prompt gets `n` choices; `echo` puts the prompt before each."""

    prompts: tuple[TextOrIds, ...]
    echo: bool = False

    @staticmethod
    def from_dict(request: Mapping[str, Any]) -> CompletionRequest:
        """Check a request.

        Errors: RequestError's classes, each naming the field, its value and what it must be.
        """
        fields = COMPLETION_FIELDS.read(request)
        checked = CompletionRequest(
            prompts=texts_or_ids(fields, "prompt", ConfigValueError),
            **sampling_fields(fields),
            echo=fields.boolean("echo", False),
            top_logprobs=_top_logprobs(fields),
            unknown_fields=COMPLETION_FIELDS.unknown(fields),
        )
        _check_best_of(fields, checked.n)
        if checked.echo and checked.top_logprobs is not None:
            raise UnsupportedFieldsError(
                "request: echo together with logprobs is not supported: a prompt's tokens have no "
                "log-probabilities here. Leave one of them out."
            )
        return checked


def _top_logprobs(fields: JsonFields) -> int | None:
    """Return how many likeliest tokens are asked for: OpenAI's `logprobs` is that number.

    WebLLM's is true or false, with `top_logprobs` as in chats.
    """
    value = fields.value("logprobs")
    if value is None or isinstance(value, bool):
        return top_logprobs(fields)
    count, other = integer(fields, "logprobs"), integer(fields, "top_logprobs")
    if other is not None and other != count:
        raise ConfigValueError(
            f"request: logprobs is {count} and top_logprobs is {other}, but they mean the same. "
            "Leave one out."
        )
    return count


def _check_best_of(fields: JsonFields, n: int) -> None:
    best_of = integer(fields, "best_of")
    if best_of is not None and best_of != n:
        raise UnsupportedFieldsError(
            f"request: best_of is {shown(best_of)} and n is {n}, but choosing among more replies "
            "than are returned is not supported. Leave best_of out."
        )
