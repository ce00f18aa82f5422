"""What all grammars of JSON share: the rules of JSON itself, and the text of a given value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from py_engine.grammar.expressions import (
    EMPTY,
    NOTHING,
    Expr,
    Ranges,
    Repeat,
    Rule,
    Text,
    alt,
    repeat,
    seq,
)

# Between two parts a space or a line break with its indentation, no more: a small model that may
# write white space without end does.
JSON_RULES = r"""ws ::= " "? | "\n" [ \t]{0,20}
char ::= [^"\\\u0000-\u001f] | "\\" (["\\/bfnrt] | "u" hex)
hex ::= [0-9ABCEFabcef] [0-9A-Fa-f]{3} | [Dd] [0-7] [0-9A-Fa-f]{2}
string ::= "\"" char* "\""
integer ::= "0" | "-"? [1-9] [0-9]{0,17}
number ::= "-"? ("0" | [1-9] [0-9]{0,17}) ("." [0-9]{1,17})? ([eE] [+-]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
pair ::= string ws ":" ws any ws
object ::= "{" ws (pair ("," ws pair)*)? "}"
array ::= "[" ws (any ws ("," ws any ws)*)? "]"
any ::= object | array | string | number | boolean | null
"""
"""RFC 8259's values as EBNF, to be put after a grammar that names them."""
RULE_NAMES = frozenset(line.split()[0] for line in JSON_RULES.splitlines())

WS, CHAR, STRING, ANY = Rule("ws"), Rule("char"), Rule("string"), Rule("any")
CHARS = Repeat(CHAR, 0, None)
QUOTE = Text('"')
COMMA = seq(Text(","), WS)
PLAIN_CHARACTERS: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF))
"""Characters that stand in a JSON string as themselves."""


def json_text(value: Any) -> str:
    """Return a value as JSON, characters beyond ASCII as themselves."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(value)
    return text


def literal(value: Any) -> Expr:
    """Return the texts of exactly this value, which differ in white space only."""
    if isinstance(value, list):
        items = [literal(each) for each in value]
    elif isinstance(value, Mapping):
        items = [member(Text(json_text(name)), literal(each)) for name, each in value.items()]
    else:
        return Text(json_text(value))
    first = seq(items[0], WS) if items else EMPTY
    others = (seq(COMMA, item, WS) for item in items[1:])
    start, end = "[]" if isinstance(value, list) else "{}"
    return seq(Text(start), WS, first, *others, Text(end))


def member(key: Expr, value: Expr) -> Expr:
    """Return a property of an object, without the white space after it."""
    return seq(key, WS, Text(":"), WS, value)


def comma_separated(item: Expr, low: int, high: int | None) -> Expr:
    """Return `low` to `high` (None: without end) items; each sees to the white space after it."""
    if high == 0:
        return EMPTY if low == 0 else NOTHING
    following = repeat(seq(COMMA, item), max(0, low - 1), None if high is None else high - 1)
    return alt(seq(item, following), EMPTY if low == 0 else NOTHING)
