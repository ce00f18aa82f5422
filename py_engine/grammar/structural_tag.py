"""Structural tags: text in which parts follow grammars, such as the arguments of tool calls.

Checked here, as xgrammar says nothing about what is wrong with one, and with its schemas and
patterns replaced by grammars of ours. The formats are xgrammar 0.1.27's, and a structural tag
inside another, which may have a `strict` of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from py_engine.errors import InvalidResponseFormatStructuralTagError
from py_engine.grammar.ebnf import check_ebnf, regex_ebnf
from py_engine.grammar.schema_check import SchemaDocument, schema_text
from py_engine.grammar.schema_grammar import schema_grammar
from py_engine.json_values import is_too_deep, shown

MAX_DEPTH = 16
_WHERE = "structural tag"

Format = dict[str, Any]


def lowered_tag(text: str, *, strict: bool) -> str:
    """Return a structural tag as JSON text that xgrammar can take.

    `strict` forbids properties that the tag's schemas do not name. Errors:
    InvalidResponseFormatStructuralTagError, and those of its schemas and grammars.
    """
    if is_too_deep(text):
        raise InvalidResponseFormatStructuralTagError(f"{_WHERE}: too deep. Make it flatter.")
    try:
        tag = json.loads(text)
    except ValueError as error:
        raise InvalidResponseFormatStructuralTagError(
            f"{_WHERE}: not valid JSON: {error}."
        ) from error
    form = tag.get("format") if isinstance(tag, Mapping) else None
    if not isinstance(tag, Mapping) or tag.get("type", "structural_tag") != "structural_tag":
        raise _wrong(_WHERE, tag, 'an object {"type": "structural_tag", "format": {...}}')
    lowered = _lowered(form, f"{_WHERE}.format", 1, strict=strict)
    return json.dumps({"type": "structural_tag", "format": lowered})


def _lowered(form: Any, where: str, depth: int, *, strict: bool) -> Format:
    kind = form.get("type") if isinstance(form, Mapping) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise _wrong(where, form, f"an object whose type is one of {', '.join(_FIELDS)}")
    if depth > MAX_DEPTH:
        raise InvalidResponseFormatStructuralTagError(
            f"{where} lies more than {MAX_DEPTH} formats deep. Make the structural tag flatter."
        )
    for name, (is_right, wanted) in _FIELDS[kind].items():
        if not is_right(form.get(name)):
            raise _wrong(f"{where}.{name}", form.get(name), wanted)
    match kind:
        case "structural_tag":
            own = form.get("strict")
            inner_strict = strict if own is None else own
            return _lowered(form["format"], f"{where}.format", depth + 1, strict=inner_strict)
        case "json_schema":
            schema, place = form["json_schema"], f"{where}.json_schema"
            schema_text(schema, place)
            return _grammar(schema_grammar(schema, place, closed=strict).ebnf)
        case "regex":
            return _grammar(regex_ebnf(form["pattern"], f"{where}.pattern"))
        case "qwen_xml_parameter":
            SchemaDocument(form["json_schema"], f"{where}.json_schema")
        case "grammar":
            check_ebnf(form["grammar"], f"{where}.grammar")
    return _with_inner(kind, form, where, depth, strict=strict)


def _with_inner(
    kind: str, form: Mapping[str, Any], where: str, depth: int, *, strict: bool
) -> Format:
    """Lower the formats inside one that stays as it is."""
    result = dict(form)
    for name in _FIELDS[kind].keys() & {"elements", "tags"}:
        result[name] = [
            _lowered(_named(each, name), f"{where}.{name}[{index}]", depth + 1, strict=strict)
            for index, each in enumerate(form[name])
        ]
    if kind == "tag":
        result["content"] = _lowered(form["content"], f"{where}.content", depth + 1, strict=strict)
    return result


def _grammar(ebnf: str) -> Format:
    return {"type": "grammar", "grammar": ebnf}


def _named(form: Any, field: str) -> Any:
    """Return a format with its type, which members of `tags` may leave out."""
    return {"type": "tag", **form} if field == "tags" else form


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _are_tags(value: Any) -> bool:
    return _is_list(value) and all(
        isinstance(each, Mapping) and each.get("type", "tag") == "tag" for each in value
    )


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(isinstance(each, str) and each for each in value)


_TEXT = (_is_text, "a string")
_FORMATS = (_is_list, "a list of at least one format")
_TAGS = (_are_tags, "a list of at least one format of type 'tag'")
_OBJECT = (lambda value: isinstance(value, Mapping), "a format")
_FLAG = (lambda value: value is None or isinstance(value, bool), "true or false")
_FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "const_string": {"value": (lambda value: _is_text(value) and bool(value), "a string")},
    "json_schema": {"json_schema": (lambda value: value is not None, "a JSON Schema")},
    "qwen_xml_parameter": {
        "json_schema": (
            lambda value: isinstance(value, Mapping) and value.get("type") == "object",
            "a JSON Schema of type 'object'",
        )
    },
    "regex": {"pattern": _TEXT},
    "grammar": {"grammar": _TEXT},
    "any_text": {},
    "sequence": {"elements": _FORMATS},
    "or": {"elements": _FORMATS},
    "tag": {
        "begin": _TEXT,
        "content": _OBJECT,
        "end": _TEXT,
    },
    "triggered_tags": {
        "triggers": (_are_texts, "a list of at least one string"),
        "tags": _TAGS,
        "at_least_one": _FLAG,
        "stop_after_first": _FLAG,
    },
    "tags_with_separator": {
        "tags": _TAGS,
        "separator": _TEXT,
        "at_least_one": _FLAG,
        "stop_after_first": _FLAG,
    },
    "structural_tag": {"format": _OBJECT, "strict": _FLAG},
}


def _wrong(where: str, value: Any, wanted: str) -> InvalidResponseFormatStructuralTagError:
    return InvalidResponseFormatStructuralTagError(
        f"{where} is {shown(value)}, but must be {wanted}."
    )
