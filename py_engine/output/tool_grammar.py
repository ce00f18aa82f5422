"""Structural tags that force tool calls, in the vocabulary of xgrammar 0.1.27."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from py_engine.grammar import GrammarSpec

Tools = Sequence[Mapping[str, Any]]
Format = Mapping[str, Any]

# Text whose first character that is no white space is not the one for `%s`.
_TEXT = r"""root ::= "" | [ \t\r\n] root | [^ \t\r\n\%s] rest
rest ::= [^\0]*
"""
_NOTHING: Format = {"type": "regex", "pattern": "()"}


def has_strict(tools: Tools) -> bool:
    """Whether one of the tools asks for arguments that follow its schema."""
    return any(tool["function"].get("strict") for tool in tools)


def parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a tool's arguments; OpenAI takes a missing one for "no parameters".

    A function has the parameters that are named, unless its schema says that it has others too.
    """
    schema = tool["function"].get("parameters") or {"type": "object", "properties": {}}
    if "properties" not in schema or "patternProperties" in schema:
        return schema
    return {"additionalProperties": False, **schema}


def call_tags(tools: Tools, begin: str, end: str, *, as_json: bool = True) -> list[Format]:
    """Return a tag for each tool's call, from `begin` with the name for `%s` to `end`.

    The name is there as JSON, or as it is.
    """
    names = [tool["function"]["name"] for tool in tools]
    return [
        {
            "type": "tag",
            "begin": begin.replace("%s", json.dumps(name) if as_json else name),
            "content": {"type": "json_schema", "json_schema": parameters(tool)},
            "end": end,
        }
        for tool, name in zip(tools, names, strict=True)
    ]


def calls(tags: Sequence[Format], *, separator: str, parallel: bool) -> Format:
    """Return the format of one call, or with `parallel` of one or more."""
    if not parallel:
        return either(*tags)
    return {
        "type": "tags_with_separator",
        "tags": tags,
        "separator": separator,
        "at_least_one": True,
    }


def call_list(tags: Sequence[Format], *, parallel: bool) -> Format:
    """Return the format of calls in brackets, as JSON and Python write lists."""
    listed = calls(tags, separator=", ", parallel=parallel)
    return {"type": "tag", "begin": "[", "content": listed, "end": "]"}


def const(text: str) -> Format:
    """Return the format of exactly `text`."""
    return {"type": "const_string", "value": text}


def either(*formats: Format) -> Format:
    """Return the format of any one of `formats`."""
    return {"type": "or", "elements": list(formats)}


def sequence(*formats: Format) -> Format:
    """Return the format of `formats` one after another."""
    return {"type": "sequence", "elements": list(formats)}


def grammar_of(form: Format, tools: Tools) -> GrammarSpec:
    """Return the grammar of a reply of this format.

    Objects inside the arguments have no properties but those that are named only if all tools are
    strict: a grammar has one rule for that.
    """
    tag = {"type": "structural_tag", "format": form}
    strict = all(tool["function"].get("strict") for tool in tools)
    return GrammarSpec("structural_tag", json.dumps(tag, ensure_ascii=False), strict=strict)


def text_with(tags: Sequence[Format], trigger: str, *, parallel: bool) -> Format:
    """Return the format of text in which `trigger` begins a call, the last unless `parallel`."""
    return {
        "type": "triggered_tags",
        "triggers": [trigger],
        "tags": tags,
        "stop_after_first": not parallel,
    }


def or_text(listed: Format, *, opening: str) -> Format:
    """Return the format of either `listed` or text.

    Text begins with another character than `opening`, with which a call begins.
    """
    return either(listed, {"type": "grammar", "grammar": _TEXT % opening})


def pythonic_tags(tools: Tools) -> list[Format]:
    """Return a tag for each tool's call in Python's notation, the values in JSON's."""
    return [
        {
            "type": "tag",
            "begin": f"{tool['function']['name']}(",
            "content": _keywords(parameters(tool)),
            "end": ")",
        }
        for tool in tools
    ]


def _keywords(schema: Mapping[str, Any]) -> Format:
    """Return the format of keyword arguments, the required ones first.

    References inside an argument's schema are resolved among the definitions only.
    """
    properties = schema.get("properties", {})
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    required = [name for name in schema.get("required", ()) if name in properties]
    optional = [name for name in properties if name not in required]

    def argument(name: str, comma: str) -> Format:
        value = properties[name]
        if isinstance(value, Mapping):
            value = {**shared, **value}
        return sequence(const(f"{comma}{name}="), {"type": "json_schema", "json_schema": value})

    def followed(first: Sequence[Format], others: Sequence[str]) -> Format:
        return sequence(*first, *(either(argument(name, ", "), _NOTHING) for name in others))

    if required:
        first = [argument(name, ", " if index else "") for index, name in enumerate(required)]
        return followed(first, optional)
    starts = range(len(optional))
    return either(
        *(followed([argument(optional[i], "")], optional[i + 1 :]) for i in starts), _NOTHING
    )
