"""The keywords of objects: properties, required, additionalProperties, minProperties, ...

Properties come in the order of `properties`, then those only in `required`, then additional ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from py_engine.grammar.expressions import (
    NOTHING,
    Expr,
    Text,
    alt,
    chars,
    repeat,
    seq,
    without,
)
from py_engine.grammar.grammar_builder import ExprOf, GrammarBuilder
from py_engine.grammar.json_rules import (
    CHARS,
    COMMA,
    PLAIN_CHARACTERS,
    QUOTE,
    STRING,
    WS,
    comma_separated,
    json_text,
    member,
)
from py_engine.grammar.schema_check import Schema, count_range

OBJECT_KEYWORDS = (
    *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    *("patternProperties", "propertyNames", "unevaluatedProperties"),
    *("dependentRequired", "dependentSchemas", "dependencies"),
)
MAX_KEY_CHARACTERS = 2_000
"""Characters of all property names from which the names of additional ones can be told apart."""


def object_expr(
    schema: Mapping[str, Any],
    where: str,
    builder: GrammarBuilder,
    expr_of: ExprOf,
    *,
    closed: bool,
) -> Expr:
    """Return the objects of a well-formed schema; `expr_of` makes the grammars of its values.

    `closed` forbids additional properties where the schema says nothing about them.
    """
    others: Schema | None
    others = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
    is_open = not closed if others is None else others is not False
    others = True if others is None else others
    properties: dict[str, Schema] = dict(schema.get("properties", {}))
    for name in schema.get("required", ()):
        properties.setdefault(name, others)
    extra: Expr = NOTHING
    if is_open:
        extra = _additional_property(properties.keys(), others, schema, where, builder, expr_of)
    _ignore_counts(schema, properties.keys(), extra != NOTHING, where, builder)
    low, high = count_range(schema, "Properties")
    if not properties:
        return seq(Text("{"), WS, comma_separated(extra, low, high), Text("}"))
    required = _required(schema, properties, low)
    members = []
    for name, each in properties.items():
        value = builder.add_rule(expr_of(each, f"{where}.properties.{name}"))
        expr = builder.add_rule(seq(member(Text(json_text(name)), value), WS))
        members.append((expr, name in required))
    inside = _in_order(members, extra, max(0, low - len(properties)), builder)
    return seq(Text("{"), WS, inside, Text("}"))


def _required(schema: Mapping[str, Any], names: Collection[str], low: int) -> set[str]:
    """Return the names that must be there, the first ones too where `low` asks for more."""
    required = set(schema.get("required", ()))
    for name in names:
        if len(required) < low:
            required.add(name)
    return required


def _ignore_counts(
    schema: Mapping[str, Any],
    names: Collection[str],
    has_extra: bool,
    where: str,
    builder: GrammarBuilder,
) -> None:
    """Note what is not seen to about how many properties there are and how they are named."""
    low, high = count_range(schema, "Properties")
    if names and "propertyNames" in schema:
        builder.ignore(f"{where}.propertyNames", "it stands beside properties")
    if names and high is not None and (len(names) > high or has_extra):
        builder.ignore(f"{where}.maxProperties", "there may be more properties than that")
    if has_extra and low - len(names) > 1:  # two of them may have the same name
        builder.ignore(f"{where}.minProperties", "that many additional properties may be one")


def _in_order(
    members: list[tuple[Expr, bool]], extra: Expr, n_extra: int, builder: GrammarBuilder
) -> Expr:
    """Return the properties, each with whether it is required, then `n_extra` or more others."""
    alone = comma_separated(extra, n_extra, None)
    after = repeat(seq(COMMA, extra), n_extra, None)
    for expr, is_required in reversed(members):
        first, later = seq(expr, after), seq(COMMA, expr, after)
        if is_required:
            alone, after = first, later
        else:
            alone, after = alt(first, alone), alt(later, after)
        alone, after = builder.add_rule(alone), builder.add_rule(after)
    return alone


def _additional_property(
    names: Collection[str],
    value_schema: Schema,
    parent: Mapping[str, Any],
    where: str,
    builder: GrammarBuilder,
    expr_of: ExprOf,
) -> Expr:
    """Return one property that is none of `names`; NOTHING where they are too many."""
    key: Expr = STRING
    if names:
        if sum(map(len, names)) > MAX_KEY_CHARACTERS:
            return NOTHING
        key = seq(QUOTE, _other_key_end(set(names), builder))
    elif "propertyNames" in parent:
        allowed = {"allOf": [{"type": "string"}, parent["propertyNames"]]}
        key = expr_of(allowed, f"{where}.propertyNames")
    value = expr_of(value_schema, f"{where}.additionalProperties")
    return builder.add_rule(seq(member(key, value), WS))


def _other_key_end(tails: set[str], builder: GrammarBuilder) -> Expr:
    """Return the ends of keys that are none of `tails`, with the closing quote."""
    ways: list[Expr] = [NOTHING if "" in tails else QUOTE]
    taken = sorted({tail[0] for tail in tails if tail})
    for character in taken:
        inner = _other_key_end({tail[1:] for tail in tails if tail[:1] == character}, builder)
        ways.append(seq(Text(json_text(character)[1:-1]), inner))
    free = without(PLAIN_CHARACTERS, tuple((ord(each), ord(each)) for each in taken))
    ways.append(seq(chars(*free), CHARS, QUOTE))
    return builder.add_rule(alt(*ways))
