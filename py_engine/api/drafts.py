"""Guesses of a reply that make it faster and change nothing: where from, and how many tokens."""

from __future__ import annotations

from typing import Any

from py_engine.api.numbers import integer
from py_engine.json_fields import JsonFields

DEFAULT_DRAFT_TOKENS = 7
"""Of a request that has a prediction and does not say how many."""


def draft_fields(fields: JsonFields) -> dict[str, Any]:
    """Return `draft_tokens` and `prediction` of SamplingFields.

    `prompt_lookup_num_tokens` is transformers' name, `prediction` OpenAI's (predicted outputs).
    Errors: ConfigValueError, RangeError, each naming the field, its value and what it must be.
    """
    prediction = _prediction(fields)
    wanted = integer(fields, "prompt_lookup_num_tokens")
    if wanted is None:
        wanted = DEFAULT_DRAFT_TOKENS if prediction else 0
    return {"draft_tokens": wanted, "prediction": prediction}


def _prediction(fields: JsonFields) -> str:
    if fields.value("prediction") is None:
        return ""
    prediction = fields.object("prediction")
    if prediction.value("type") != "content":
        raise prediction.invalid("type", 'the text "content"')
    if isinstance(prediction.value("content"), str):
        return prediction.string("content")
    parts = prediction.objects("content")
    for part in parts:
        if part.value("type") != "text":
            raise part.invalid("type", 'the text "text"')
    return "".join(part.string("text") for part in parts)
