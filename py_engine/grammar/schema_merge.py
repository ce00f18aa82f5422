"""Schemas that must all hold as one schema, and whether two can hold at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from py_engine.errors import InvalidResponseFormatError
from py_engine.grammar.schema_check import TYPES, Schema, SchemaDocument

ANNOTATIONS = frozenset(
    "title description default examples deprecated readOnly writeOnly $comment $schema $id $anchor "
    "$dynamicAnchor $defs definitions $vocabulary contentEncoding contentMediaType contentSchema "
    "discriminator".split()
)


class UnmergeableError(ValueError):
    """Two schemas have keywords that do not become one; the text names them."""


def types_of(schema: Schema) -> frozenset[str]:
    """Return the types that a schema asks for by `type`, "integer" apart from "number"."""
    if isinstance(schema, bool) or "type" not in schema:
        return frozenset(TYPES) if schema is not False else frozenset()
    named = schema["type"]
    types = frozenset([named] if isinstance(named, str) else named)
    return types | {"integer"} if "number" in types else types


def type_of(value: Any) -> str:
    """Return the narrowest type of a JSON value: whole numbers are "integer"."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    kinds = {float: "number", str: "string", list: "array", type(None): "null"}
    return kinds.get(type(value), "object")


def _types(left: Any, right: Any) -> list[str]:
    both = types_of({"type": left}) & types_of({"type": right})
    return sorted(both - {"integer"} if "number" in both else both)


def _both(left: Any, right: Any) -> dict[str, Any]:
    return {"allOf": [left, right]}


def _enum(left: Any, right: Any) -> list[Any]:
    keys = {json.dumps(value, sort_keys=True) for value in right}
    return [value for value in left if json.dumps(value, sort_keys=True) in keys]


_MERGED: dict[str, Callable[[Any, Any], Any]] = {
    "type": _types,
    "enum": _enum,
    "required": lambda left, right: list(dict.fromkeys([*left, *right])),
    "allOf": lambda left, right: [*left, *right],
    "items": _both,
    "additionalProperties": _both,
    "uniqueItems": lambda left, right: left or right,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}


def merged(left: Schema, right: Schema) -> Schema:
    """Return one schema for two, `right` inside `left`. Errors: UnmergeableError."""
    if isinstance(left, bool):
        return right if left else False
    if isinstance(right, bool):
        return left if right else False
    _check_arrays(left, right)
    if right.get("unevaluatedProperties", True) is not True:
        raise UnmergeableError("'unevaluatedProperties' inside")
    result = {**right, **left}
    for keyword in left:
        if keyword not in right or keyword in ANNOTATIONS or keyword == "properties":
            continue
        mine, other = left[keyword], right[keyword]
        if mine == other and isinstance(mine, bool) == isinstance(other, bool):
            continue
        if keyword not in _MERGED:
            raise UnmergeableError(f"two different '{keyword}'")
        result[keyword] = _MERGED[keyword](mine, other)
        if keyword in ("type", "enum") and not result[keyword]:
            return False
    if "properties" in left or "properties" in right:
        result["properties"] = _properties(left, right)
    return result


def resolved(schema: Schema, document: SchemaDocument, where: str) -> Schema:
    """Follow a reference as long as there is one, and put what stands beside it to it.

    Errors: UnmergeableError; InvalidResponseFormatError for references that only name each other.
    """
    followed = set()
    while not isinstance(schema, bool) and "$ref" in schema:
        reference = schema["$ref"]
        if reference in followed:
            raise InvalidResponseFormatError(
                f"{where} refers to {reference}, which refers to itself. Put something between."
            )
        followed.add(reference)
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = merged(beside, document.resolve(reference))
    return schema


def _check_arrays(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    """Refuse two ways to say which items there are, unless both are `items` for all of them."""
    mine, other = (
        {word for word in ("items", "prefixItems", "unevaluatedItems") if word in schema}
        for schema in (left, right)
    )
    if "unevaluatedItems" in other or (mine and other and mine | other != {"items"}):
        raise UnmergeableError("the items of an array, told in two ways")


def _properties(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    mine, other = left.get("properties", {}), right.get("properties", {})
    for name in [*mine, *(name for name in other if name not in mine)]:
        first, second = _property(left, name), _property(right, name)
        found[name] = second if first is True else first if second is True else _both(first, second)
    return found


def _property(schema: Mapping[str, Any], name: str) -> Any:
    if name in schema.get("properties", {}):
        return schema["properties"][name]
    if "patternProperties" in schema:
        raise UnmergeableError("'patternProperties' beside other properties")
    return schema.get("additionalProperties", True)


def are_disjoint(left: Schema, right: Schema, resolve: Callable[[Schema], Schema]) -> bool:
    """Return whether it is certain that nothing fits both; `resolve` follows references."""
    left, right = resolve(left), resolve(right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is False or right is False
    if not types_of(left) & types_of(right):
        return True
    mine, other = _values(left), _values(right)
    if mine is not None and other is not None:
        return not mine & other
    if types_of(left) & types_of(right) != {"object"}:
        return False
    names = set(left.get("required", ())) & set(right.get("required", ()))
    both = names & left.get("properties", {}).keys() & right.get("properties", {}).keys()
    return any(
        are_disjoint(left["properties"][name], right["properties"][name], resolve) for name in both
    )


def _values(schema: Mapping[str, Any]) -> set[str] | None:
    """Return the values of `const` or `enum` where they are strings, as numbers can be equal."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is None or not all(isinstance(value, str) for value in values):
        return None
    return set(values)
