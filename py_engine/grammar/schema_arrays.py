"""The keywords of arrays: items, prefixItems, minItems, maxItems, unevaluatedItems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from py_engine.grammar.expressions import EMPTY, Expr, Text, optional, repeat, seq
from py_engine.grammar.grammar_builder import ExprOf, GrammarBuilder
from py_engine.grammar.json_rules import COMMA, WS, comma_separated
from py_engine.grammar.schema_check import count_range

ARRAY_KEYWORDS = (
    *("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    *("minContains", "maxContains", "unevaluatedItems"),
)


def array_expr(
    schema: Mapping[str, Any], where: str, builder: GrammarBuilder, expr_of: ExprOf
) -> Expr:
    """Return the arrays of a well-formed schema; `expr_of` makes the grammars of its items."""
    low, high = count_range(schema, "Items")
    if schema.get("uniqueItems") and (high is None or high > 1):
        builder.ignore(f"{where}.uniqueItems", "a grammar cannot follow it")
    prefix = [
        seq(expr_of(each, f"{where}.prefixItems[{index}]"), WS)
        for index, each in enumerate(schema.get("prefixItems", ()))
    ][:high]
    others = schema.get("items", schema.get("unevaluatedItems", True))
    item = builder.add_rule(seq(expr_of(others, f"{where}.items"), WS))
    if not prefix:
        return seq(Text("["), WS, comma_separated(item, low, high), Text("]"))
    n_prefix = len(prefix)
    after = repeat(
        seq(COMMA, item), max(0, low - n_prefix), None if high is None else high - n_prefix
    )
    return seq(Text("["), WS, _after_prefix(prefix, after, low, builder), Text("]"))


def _after_prefix(prefix: Sequence[Expr], after: Expr, low: int, builder: GrammarBuilder) -> Expr:
    """Return the first items, then `after`; from the item at `low` on the array may end."""
    tail = after
    for index in range(len(prefix) - 1, -1, -1):
        tail = seq(COMMA if index else EMPTY, prefix[index], tail)
        if index >= low:
            tail = builder.add_rule(optional(tail))
    return tail
