"""`response_format`: WebLLM's and OpenAI's ways to say what the reply must look like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from py_engine.errors import (
    InvalidResponseFormatError,
    InvalidResponseFormatGrammarError,
    InvalidResponseFormatStructuralTagError,
)
from py_engine.grammar.json_schema import check_json_schema
from py_engine.grammar.spec import GrammarSpec
from py_engine.json_fields import ErrorClass, JsonFields
from py_engine.json_values import MAX_DEPTH, is_too_deep, shown

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NAME_WANTED = "1 to 64 letters, digits, underscores or dashes"

# A grammar, and the schema to check a complete reply against.
Format = tuple[GrammarSpec | None, str | None]

WHERE = "request: response_format"


def response_format(fields: JsonFields) -> Format:
    """Return what `response_format` asks for; (None, None) is free text.

    Errors: InvalidResponseFormatError, InvalidResponseFormatGrammarError,
    InvalidResponseFormatStructuralTagError.
    """
    if "response_format" not in fields:
        return None, None
    value = fields.value("response_format")
    if not isinstance(value, Mapping):
        raise InvalidResponseFormatError(
            f'{WHERE} is {shown(value)}, but must be an object such as {{"type": "json_object"}}.'
        )
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise InvalidResponseFormatError(
            f"{WHERE}.type is {shown(kind)}, but must be one of {', '.join(_READERS)}."
        )
    given = {name: item for name, item in value.items() if item is not None and name != "type"}
    _check_belonging(kind, given)
    return _READERS[kind](given)


def _check_belonging(kind: str, given: Mapping[str, Any]) -> None:
    for name in given:
        kinds, error = _FIELDS.get(name, ((kind,), InvalidResponseFormatError))
        if kind not in kinds:
            raise error(
                f"{WHERE}.{name} is given, but type is '{kind}'. It belongs to type "
                f"'{kinds[0]}'; change the type or leave it out."
            )


def _text(_given: Mapping[str, Any]) -> Format:
    return None, None


def _json_object(given: Mapping[str, Any]) -> Format:
    if "schema" not in given:
        return GrammarSpec("json"), None
    # WebLLM compiles these in xgrammar's strict mode: no properties but those of the schema.
    return _json_schema_format(given["schema"], "schema", closed=True, strict=False)


def _json_schema(given: Mapping[str, Any]) -> Format:
    source = JsonFields(
        given.get("json_schema"), f"{WHERE}.json_schema", error=InvalidResponseFormatError
    )
    name = source.string("name")
    if not NAME.fullmatch(name):
        raise source.invalid("name", NAME_WANTED)
    source.string("description", "")
    strict = source.boolean("strict", False)
    if "schema" not in source:
        return GrammarSpec("json"), None
    return _json_schema_format(
        source.value("schema"), "json_schema.schema", closed=strict, strict=strict
    )


def _json_schema_format(schema: Any, name: str, *, closed: bool, strict: bool) -> Format:
    where = f"{WHERE}.{name}"
    if isinstance(schema, str):
        schema = _parsed(schema, where, InvalidResponseFormatError)
    checked = check_json_schema(schema, where, strict=strict)
    spec = GrammarSpec("json_schema", checked.text, strict=closed)
    return spec, checked.text if checked.needs_validation else None


def _grammar(given: Mapping[str, Any]) -> Format:
    text = _text_of(given, "grammar", InvalidResponseFormatGrammarError)
    return GrammarSpec("ebnf", text), None


def _regex(given: Mapping[str, Any]) -> Format:
    if "regex" in given and "pattern" in given:
        raise InvalidResponseFormatError(
            f"{WHERE} has both regex and pattern, but they mean the same. Leave one out."
        )
    name = "pattern" if "pattern" in given else "regex"
    return GrammarSpec("regex", _text_of(given, name, InvalidResponseFormatError)), None


def _structural_tag(given: Mapping[str, Any]) -> Format:
    where = f"{WHERE}.structural_tag"
    tag = given.get("structural_tag")
    if isinstance(tag, str):
        tag = _parsed(tag, where, InvalidResponseFormatStructuralTagError)
    if not isinstance(tag, Mapping):
        raise InvalidResponseFormatStructuralTagError(
            f"{where} is {shown(tag)}, but must be an object or its JSON text."
        )
    return GrammarSpec("structural_tag", json.dumps(tag)), None


def _text_of(given: Mapping[str, Any], name: str, error: ErrorClass) -> str:
    text = given.get(name)
    if not isinstance(text, str) or not text:
        raise error(f"{WHERE}.{name} is {shown(text)}, but must be a string that is not empty.")
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise error(
            f"{WHERE}.{name} has half a surrogate pair at character {cause.start}, which no text "
            "can match. Correct the string."
        ) from cause
    return text


def _parsed(text: str, where: str, error: ErrorClass) -> Any:
    if is_too_deep(text):
        raise error(f"{where} is nested too deeply: at most {MAX_DEPTH} levels are taken.")
    try:
        return json.loads(text)
    except ValueError as cause:
        raise error(f"{where} is {shown(text)}, but must be JSON: {cause}.") from cause


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Format]] = {
    "text": _text,
    "json_object": _json_object,
    "json_schema": _json_schema,
    "grammar": _grammar,
    "regex": _regex,
    "structural_tag": _structural_tag,
}

# The fields beside `type`: with which types they may be, and the error elsewhere.
_FIELDS: Mapping[str, tuple[tuple[str, ...], ErrorClass]] = {
    "schema": (("json_object",), InvalidResponseFormatError),
    "json_schema": (("json_schema",), InvalidResponseFormatError),
    "grammar": (("grammar",), InvalidResponseFormatGrammarError),
    "regex": (("regex",), InvalidResponseFormatError),
    "pattern": (("regex",), InvalidResponseFormatError),
    "structural_tag": (("structural_tag",), InvalidResponseFormatStructuralTagError),
}
