"""The numeric fields of requests: one table of their ranges."""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.errors import MinValueError, NonNegativeError, RangeError
from py_engine.json_fields import ErrorClass, JsonFields
from py_engine.json_values import shown


@dataclass(frozen=True)
class NumberRule:
    """The range of one field, from `minimum` to `maximum`.

    `too_low` is the error below it; above it is always RangeError. `excludes_minimum`: the value
    must be greater than `minimum`.
    """

    minimum: float
    maximum: float
    too_low: ErrorClass = RangeError
    is_integer: bool = False
    excludes_minimum: bool = False
    hint: str = ""


# Names are OpenAI's and WebLLM's, vLLM's for top_k and min_p, transformers' for prompt lookup.
# Where these set no upper bound, ours keeps 32-bit floats and counts from overflowing.
NUMBER_RULES = {
    "temperature": NumberRule(0, 1000, NonNegativeError, hint="; 0 is always the likeliest token"),
    "top_p": NumberRule(0, 1, excludes_minimum=True),
    "top_k": NumberRule(-1, 2**31 - 1, is_integer=True, hint="; 0 and -1 are all tokens"),
    "min_p": NumberRule(0, 1),
    "presence_penalty": NumberRule(-2, 2),
    "frequency_penalty": NumberRule(-2, 2),
    "repetition_penalty": NumberRule(
        0, 1000, MinValueError, excludes_minimum=True, hint="; 1 is no penalty"
    ),
    "max_tokens": NumberRule(1, 2**53, MinValueError, is_integer=True),
    "max_completion_tokens": NumberRule(1, 2**53, MinValueError, is_integer=True),
    "n": NumberRule(1, 128, MinValueError, is_integer=True),
    "best_of": NumberRule(1, 128, MinValueError, is_integer=True),
    "top_logprobs": NumberRule(0, 20, is_integer=True),
    "logprobs": NumberRule(0, 20, is_integer=True),
    "prompt_lookup_num_tokens": NumberRule(0, 1000, is_integer=True, hint="; 0 is no lookup"),
    "dimensions": NumberRule(1, 2**31 - 1, MinValueError, is_integer=True),
}


def number(fields: JsonFields, name: str) -> float | None:
    """Return a field of NUMBER_RULES, or None where it is absent.

    Errors: ConfigValueError for what is no number, else the class that the rule names.
    """
    value = fields.value(name)
    if value is None:
        return None
    rule = NUMBER_RULES[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fields.invalid(name, _described(rule))
    if rule.is_integer and whole(value) is None:
        raise fields.invalid(name, _described(rule))
    if value < rule.minimum or (rule.excludes_minimum and value == rule.minimum):
        raise rule.too_low(_refusal(fields, name, rule))
    if value > rule.maximum:
        raise RangeError(_refusal(fields, name, rule))
    return float(value)


def integer(fields: JsonFields, name: str) -> int | None:
    """Return an integer field of NUMBER_RULES, or None where it is absent; see `number`."""
    value = number(fields, name)
    return None if value is None else int(value)


def whole(value: object) -> int | None:
    """Return `value` as an integer, JavaScript's whole floats too; None where it is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _refusal(fields: JsonFields, name: str, rule: NumberRule) -> str:
    return f"{fields.where(name)} is {shown(fields.value(name))}, but must be {_described(rule)}."


def _described(rule: NumberRule) -> str:
    kind = "an integer" if rule.is_integer else "a number"
    lower = f"above {rule.minimum:g}" if rule.excludes_minimum else f"from {rule.minimum:g}"
    upper = f"up to {rule.maximum:g}" if rule.maximum < 2**31 - 1 else ""
    return " ".join(filter(None, (kind, lower, upper))) + rule.hint
