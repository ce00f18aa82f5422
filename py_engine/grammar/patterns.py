"""Regular expressions as grammars of the texts that match: as text or inside a JSON string."""

from __future__ import annotations

from py_engine.grammar.expressions import (
    EMPTY,
    NOTHING,
    Alt,
    Chars,
    Expr,
    Ranges,
    Repeat,
    Seq,
    Text,
    alt,
    chars,
    repeat,
    seq,
    without,
)
from py_engine.grammar.json_rules import CHARS
from py_engine.grammar.pattern_parser import END, START, UnsupportedPatternError, parse_pattern

_JSON_ESCAPES = {
    **{0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r"},
    **{0x09: "\\t", 0x08: "\\b", 0x0C: "\\f"},
}
_NOT_IN_JSON: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))


def whole_text(pattern: str) -> Expr:
    """Return the texts that match from their beginning to their end. Errors: PatternError."""
    return alt(*(body for _, body, _ in _branches(parse_pattern(pattern))))


def in_json_string(pattern: str) -> Expr:
    """Return the insides of the JSON strings in which `pattern` is found. Errors: PatternError."""
    found = []
    for has_start, body, has_end in _branches(parse_pattern(pattern)):
        before = EMPTY if has_start else CHARS
        after = EMPTY if has_end else CHARS
        found.append(seq(before, _json(body), after))
    return alt(*found)


def _json(expr: Expr) -> Expr:
    match expr:
        case Chars(ranges):
            return _json_chars(ranges)
        case Seq(items):
            return seq(*map(_json, items))
        case Alt(items):
            return alt(*map(_json, items))
        case Repeat(item, low, high):
            return repeat(_json(item), low, high)
    return expr


def _json_chars(ranges: Ranges) -> Expr:
    """Return one character out of `ranges` as it stands in a JSON string.

    Control characters without a short escape are left out where there is anything else.
    """
    plain = chars(*without(ranges, _NOT_IN_JSON))
    escapes = [text for code, text in _JSON_ESCAPES.items() if _has(ranges, code)]
    if plain == NOTHING and not escapes:
        escapes = [f"\\u{code:04x}" for code in range(0x20) if _has(ranges, code)]
    return alt(plain, *map(Text, escapes))


def _has(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


def _branches(expr: Expr) -> list[tuple[bool, Expr, bool]]:
    """Take the anchors off the alternatives: (begins at the start, the rest, ends at the end)."""
    if isinstance(expr, Alt):
        return [branch for item in expr.items for branch in _branches(item)]
    items = expr.items if isinstance(expr, Seq) else (expr,)
    has_start, has_end = items[:1] == (START,), items[-1:] == (END,)
    if len(items) == 1 and (has_start or has_end):
        return [(has_start, EMPTY, has_end)]
    body = items[int(has_start) : len(items) - int(has_end)]
    if any(_has_anchor(item) for item in body):
        raise UnsupportedPatternError("'^' and '$' can only stand at the beginning and the end")
    return [(has_start, seq(*body), has_end)]


def _has_anchor(expr: Expr) -> bool:
    if isinstance(expr, Seq | Alt):
        return any(map(_has_anchor, expr.items))
    return _has_anchor(expr.item) if isinstance(expr, Repeat) else expr in (START, END)
