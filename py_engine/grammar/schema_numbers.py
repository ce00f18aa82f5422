"""The keywords of numbers: minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from py_engine.grammar.expressions import Expr, Rule
from py_engine.grammar.grammar_builder import GrammarBuilder
from py_engine.grammar.numbers import Bound, integers, numbers

NUMBER_KEYWORDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def number_expr(schema: Mapping[str, Any], where: str, builder: GrammarBuilder) -> Expr:
    """Return the numbers of a well-formed schema."""
    if schema.get("multipleOf") == 1:
        return integer_expr(schema, where, builder)
    if "multipleOf" in schema:
        _ignore_multiple(where, builder)
    low, high = _bounds(schema)
    if low is None and high is None:
        return Rule("number")
    return builder.add_rule(numbers(low, high))


def integer_expr(schema: Mapping[str, Any], where: str, builder: GrammarBuilder) -> Expr:
    """Return the integers of a well-formed schema."""
    if schema.get("multipleOf", 1) != 1:
        _ignore_multiple(where, builder)
    low, high = _bounds(schema)
    if low is None and high is None:
        return Rule("integer")
    least = None if low is None else _first_integer(low)
    most = None if high is None else -_first_integer((-high[0], high[1]))
    return builder.add_rule(integers(least, most))


def _ignore_multiple(where: str, builder: GrammarBuilder) -> None:
    builder.ignore(f"{where}.multipleOf", "a grammar cannot follow it")


def _bounds(schema: Mapping[str, Any]) -> tuple[Bound | None, Bound | None]:
    low = _bound(schema, "minimum", "exclusiveMinimum", max)
    return low, _bound(schema, "maximum", "exclusiveMaximum", min)


def _bound(
    schema: Mapping[str, Any],
    including: str,
    excluding: str,
    narrower: Callable[[Iterable[Decimal]], Decimal],
) -> Bound | None:
    """Return the narrower one of the including and the excluding bound on one side."""
    # Through the text, as a float's own digits are not the ones that were written.
    bounds = {
        keyword: Decimal(repr(schema[keyword]))
        for keyword in (including, excluding)
        if keyword in schema
    }
    if not bounds:
        return None
    nearest = narrower(bounds.values())
    return nearest, bounds.get(excluding) == nearest


def _first_integer(low: Bound) -> int:
    value, is_excluded = low
    whole = int(value.to_integral_value(rounding="ROUND_CEILING"))
    return whole + 1 if is_excluded and whole == value else whole
