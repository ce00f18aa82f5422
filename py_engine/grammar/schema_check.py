"""Whether a JSON Schema is well formed: every keyword's value, references, sizes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote

from py_engine.errors import InvalidResponseFormatError
from py_engine.grammar.pattern_parser import PatternError, UnsupportedPatternError
from py_engine.grammar.patterns import in_json_string
from py_engine.json_values import shown

Schema: TypeAlias = Mapping[str, Any] | bool

TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")

# What one schema may ask of the compiler.
MAX_DEPTH = 32
MAX_SUBSCHEMAS = 5_000
MAX_TEXT = 500_000
MAX_COUNT = 100_000
MAX_BOUND = 1e15
"""Whole numbers up to it, and their halves, are exact in f64, in which checkers read them."""


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value) and value <= MAX_COUNT


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) <= MAX_BOUND


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_type(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return _is_strings(names) and bool(names) and all(name in TYPES for name in names)


def _is_schema(value: Any) -> bool:
    return isinstance(value, Mapping | bool)


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


def _is_schema_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_schema, value.values()))


_COUNT = (_is_count, f"a whole number from 0 to {MAX_COUNT:,}")
_NUMBER = (_is_number, f"a number of at most {MAX_BOUND:.0e}")
_TEXT = (lambda value: isinstance(value, str), "a string")
_SCHEMA = (_is_schema, "a schema: an object, true or false")
_SCHEMAS = (_is_schemas, "a list of at least one schema")
_SCHEMA_MAP = (_is_schema_map, "an object of schemas")
_FLAG = (lambda value: isinstance(value, bool), "true or false")

_KEYWORDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), _COUNT),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    **dict.fromkeys(("pattern", "format", "$ref", "$anchor", "$id"), _TEXT),
    **dict.fromkeys(("items", "additionalProperties", "not", "contains", "propertyNames"), _SCHEMA),
    **dict.fromkeys(("if", "then", "else", "unevaluatedItems", "unevaluatedProperties"), _SCHEMA),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), _SCHEMAS),
    **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions"), _SCHEMA_MAP),
    "dependentSchemas": _SCHEMA_MAP,
    "uniqueItems": _FLAG,
    "multipleOf": (lambda value: _is_number(value) and value > 0, "a number greater than 0"),
    "required": (_is_strings, "a list of strings"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values, not empty"),
    "type": (_is_type, f"one or more of {', '.join(TYPES)}"),
}


def invalid(where: str, value: Any, wanted: str) -> InvalidResponseFormatError:
    """Return the error for a part of a schema."""
    return InvalidResponseFormatError(f"{where} is {shown(value)}, but must be {wanted}.")


def schema_text(schema: Any, where: str) -> str:
    """Return a schema as JSON text. Errors: InvalidResponseFormatError."""
    if not _is_schema(schema):
        raise invalid(where, schema, "a JSON Schema: an object")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResponseFormatError(
            f"{where} is no JSON ({error}). Use only objects, lists, strings, finite numbers, "
            "true, false and null, none of them inside itself."
        ) from error
    if len(text) > MAX_TEXT:
        raise InvalidResponseFormatError(
            f"{where} has {len(text):,} characters, but at most {MAX_TEXT:,} can be compiled. "
            "Make the schema smaller."
        )
    return text


def count_range(schema: Mapping[str, Any], counted: str) -> tuple[int, int | None]:
    """Return a well-formed schema's minimum and maximum of "Length", "Items" or "Properties"."""
    most = schema.get(f"max{counted}")
    return int(schema.get(f"min{counted}", 0)), None if most is None else int(most)


def subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """Yield the schemas right inside a well-formed one, each with its path from there."""
    for keyword, value in schema.items():
        kind = _KEYWORDS.get(keyword)
        if kind is _SCHEMA:
            yield f".{keyword}", value
        elif kind is _SCHEMAS:
            for index, each in enumerate(value):
                yield f".{keyword}[{index}]", each
        elif kind is _SCHEMA_MAP:
            for name, each in value.items():
                yield f".{keyword}.{name}", each


class SchemaDocument:
    """A well-formed schema and its references. Errors: InvalidResponseFormatError."""

    def __init__(self, root: Schema, where: str) -> None:
        self.root = root
        self._where = where
        self._anchors: dict[str, Schema] = {}
        self._n_subschemas = 0
        self._has_inner_id = False
        references = list(self._checked(root, where, 1))
        for path, reference in references:
            self._check_reference(path, reference)

    def _checked(self, schema: Schema, where: str, depth: int) -> Iterator[tuple[str, str]]:
        """Check a schema and all inside it; yield its references with their paths."""
        self._n_subschemas += 1
        if self._n_subschemas > MAX_SUBSCHEMAS:
            raise InvalidResponseFormatError(
                f"{self._where} consists of more than {MAX_SUBSCHEMAS:,} schemas. Make it smaller."
            )
        if depth > MAX_DEPTH:
            raise InvalidResponseFormatError(
                f"{where} lies more than {MAX_DEPTH} schemas deep. Move inner schemas to $defs and "
                "refer to them."
            )
        if isinstance(schema, bool):
            return
        for keyword, (is_right, wanted) in _KEYWORDS.items():
            if keyword in schema and not is_right(schema[keyword]):
                raise invalid(f"{where}.{keyword}", schema[keyword], wanted)
        self._check_strings(schema, where)
        self._has_inner_id |= depth > 1 and "$id" in schema
        if "$anchor" in schema:
            self._anchors[schema["$anchor"]] = schema
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in schema:
                raise InvalidResponseFormatError(
                    f"{where}.{keyword} cannot be followed. Use $ref with a place in this schema."
                )
        if "$ref" in schema:
            yield f"{where}.$ref", schema["$ref"]
        for path, inner in subschemas(schema):
            yield from self._checked(inner, where + path, depth + 1)

    def _check_strings(self, schema: Mapping[str, Any], where: str) -> None:
        patterns = [(f"{where}.pattern", schema["pattern"])] if "pattern" in schema else []
        patterns += [
            (f"{where}.patternProperties", name) for name in schema.get("patternProperties", ())
        ]
        for path, pattern in patterns:
            try:
                in_json_string(pattern)
            except UnsupportedPatternError:
                continue
            except PatternError as error:
                wanted = f"a regular expression of JavaScript: {error}"
                raise invalid(path, pattern, wanted) from error

    def _check_reference(self, where: str, reference: str) -> None:
        if not reference.startswith("#"):
            raise invalid(where, reference, "a reference inside the schema, such as '#/$defs/name'")
        if self._has_inner_id:
            raise InvalidResponseFormatError(
                f"{where} is {shown(reference)}, but a schema with its own $id lies inside this "
                "one, which changes what references mean. Leave the inner $id out."
            )
        if not _is_schema(self._find(reference)):
            raise invalid(where, reference, "the place of a schema inside this one")

    def resolve(self, reference: str) -> Schema:
        """Return the schema that a checked reference names."""
        found = self._find(reference)
        assert _is_schema(found)
        result: Schema = found
        return result

    def _find(self, reference: str) -> Any:
        pointer = unquote(reference[1:])
        if pointer and not pointer.startswith("/"):
            return self._anchors.get(pointer)
        found: Any = self.root
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found
