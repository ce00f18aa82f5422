"""JSON Schemas that are refused, and what the refusal says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from py_engine.errors import InvalidResponseFormatError
from py_engine.grammar.json_schema import check_json_schema, schema_ebnf


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


REFUSED = [
    ([], "must be a JSON Schema"),
    ({"const": {1}}, "no JSON"),
    ({"const": float("nan")}, "no JSON"),
    (False, "allows no value"),
    ({"type": "text"}, "schema.type is 'text', but must be one or more of string"),
    ({"type": []}, "schema.type"),
    ({"properties": []}, "schema.properties is []"),
    ({"properties": {"a": {"items": 3}}}, "schema.properties.a.items is 3"),
    ({"required": "a"}, "schema.required"),
    ({"minLength": -1}, "schema.minLength is -1"),
    ({"maxItems": 10**9}, "schema.maxItems"),
    ({"minimum": True}, "schema.minimum"),
    ({"enum": []}, "schema.enum"),
    ({"anyOf": []}, "schema.anyOf"),
    ({"pattern": "a("}, "not closed"),
    ({"pattern": "a{3,1}"}, "at least 3 and at most 1"),
    ({"pattern": "[z-a]"}, "wrong way round"),
    ({"$ref": "https://example.org/schema"}, "a reference inside the schema"),
    ({"$ref": "#/$defs/none"}, "the place of a schema"),
    ({"$ref": "#"}, "only endless ones"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "only endless ones"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "contradict"),
    ({"$dynamicRef": "#x"}, "Use $ref"),
    (nested(32), "32 schemas deep"),
    ({"enum": ["x" * 500_000]}, "at most 500,000"),
]


@pytest.mark.parametrize(("schema", "part"), REFUSED)
@pytest.mark.parametrize("strict", [True, False])
def test_what_no_grammar_can_be_made_of_is_refused(schema: Any, part: str, strict: bool) -> None:
    with pytest.raises(InvalidResponseFormatError) as info:
        check_json_schema(schema, "schema", strict=strict)
    assert part in str(info.value)


NOT_STRICT = [
    ({"not": {"type": "string"}}, "schema.not"),
    ({"contains": {"type": "string"}}, "schema.contains"),
    ({"properties": {"a": {}}, "dependentRequired": {"a": ["b"]}}, "schema.dependentRequired"),
    ({"properties": {"a": {"if": True, "then": True}}}, "schema.properties.a.if"),
    ({"type": "integer", "multipleOf": 3}, "schema.multipleOf"),
    ({"uniqueItems": True, "type": "array"}, "schema.uniqueItems"),
    ({"patternProperties": {"^a": {}}}, "schema.patternProperties"),
    ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "schema.oneOf"),
    ({"type": "string", "format": "color"}, "There are: date"),
    ({"type": "string", "pattern": "(?=a)b"}, "schema.pattern"),
    ({"type": "string", "pattern": "a", "maxLength": 3}, "schema.maxLength"),
    ({"enum": ["a", "bcd"], "maxLength": 2}, "schema.maxLength"),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "schema.allOf"),
]


@pytest.mark.parametrize(("schema", "part"), NOT_STRICT)
def test_what_a_grammar_cannot_follow_is_refused_when_strict_else_validated(
    schema: Any, part: str
) -> None:
    assert check_json_schema(schema, "schema", strict=False).needs_validation
    with pytest.raises(InvalidResponseFormatError) as info:
        check_json_schema(schema, "schema", strict=True)
    assert part in str(info.value)
    assert "set strict to false" in str(info.value)


STRICT = [
    {"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]},
    {"anyOf": [{"$ref": "#/$defs/a~1b"}, {"type": "null"}], "$defs": {"a/b": {"type": "string"}}},
    {"allOf": [{"properties": {"a": {"type": "string"}}}, {"required": ["a"]}]},
    {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]}
            for kind in ("cat", "dog")
        ],
        "discriminator": {"propertyName": "kind"},
    },
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
    {"type": "array", "prefixItems": [{"type": "string"}], "items": False, "minItems": 1},
    {"type": "string", "format": "date-time"},
    {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
]


@pytest.mark.parametrize("schema", STRICT)
def test_what_a_grammar_can_follow_is_accepted(schema: Any) -> None:
    checked = check_json_schema(schema, "schema", strict=True)
    assert not checked.needs_validation
    assert json.loads(checked.text) == schema
    assert schema_ebnf(checked.text, strict=True).startswith("root ::= ")
