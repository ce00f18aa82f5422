r"""Regular expressions in JavaScript's notation, read as grammars.

The notation is ECMA-262's with the flag `u`, as JSON Schema asks for. `\D`, `\W` and `\S` hold
what they do in both JavaScript and Python, so that either can check a reply; `.` is any character
but line feed and carriage return.
"""

from __future__ import annotations

import re

from py_engine.grammar.ebnf_writer import followable
from py_engine.grammar.expressions import (
    MAX_CODE_POINT,
    NOTHING,
    Chars,
    Expr,
    Ranges,
    Rule,
    alt,
    chars,
    repeat,
    seq,
    without,
)

MAX_PATTERN = 10_000
MAX_GROUPS_DEEP = 32
MAX_REPETITIONS = 100_000

_ALL: Ranges = ((0, 0xD7FF), (0xE000, MAX_CODE_POINT))
_LINE_ENDS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D))
_DIGITS: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACES: Ranges = (
    *((0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),
)
# Spaces in one of JavaScript and Python only.
_DISPUTED_SPACES: Ranges = ((0x1C, 0x1F), (0x85, 0x85), (0xFEFF, 0xFEFF))
_ASCII: Ranges = ((0, 0x7F),)
# Python's `\d` and `\w` have members beyond ASCII, which its `\D` and `\W` lack.
_CLASSES: dict[str, Ranges] = {
    "d": _DIGITS,
    "D": without(_ASCII, _DIGITS),
    "w": _WORD,
    "W": without(_ASCII, _WORD),
    "s": _SPACES,
    "S": without(without(_ALL, _SPACES), _DISPUTED_SPACES),
}
# A class with both is any character, disputed ones too.
_OPPOSITES = ({"\\s", "\\S"}, {"\\d", "\\D"}, {"\\w", "\\W"})
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
_UNSUPPORTED_ESCAPES = "bBpPk123456789"
_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d{1,9})(,(\d{1,9})?)?\})\??")
_GROUP_NAME = re.compile(r"<[A-Za-z_$][\w$]*>")
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")
START, END = Rule("^"), Rule("$")
"""The anchors, which are no rules of a grammar: whoever gets them takes them off."""


class PatternError(ValueError):
    """A pattern is wrong; the text says where and why."""


class UnsupportedPatternError(PatternError):
    """A pattern is right, but has something that no grammar can follow."""


def parse_pattern(pattern: str) -> Expr:
    """Return the grammar of a pattern, with START and END in it. Errors: PatternError."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"it has {len(pattern):,} characters; at most {MAX_PATTERN:,} can be")
    parser = _Parser(pattern)
    expr = parser.alternatives()
    if parser.at < len(pattern):
        raise parser.error("')' closes nothing")
    return expr


class _Parser:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self.at = 0
        self._text = pattern
        self._depth = 0

    def error(self, what: str) -> PatternError:
        return PatternError(f"{what} (at character {self.at + 1})")

    def alternatives(self) -> Expr:
        found = [self._sequence()]
        while self._take("|"):
            found.append(self._sequence())
        return alt(*found)

    def _sequence(self) -> Expr:
        items: list[Expr] = []
        while self.at < len(self._text) and self._text[self.at] not in "|)":
            items.append(self._quantified())
        return seq(*items)

    def _quantified(self) -> Expr:
        item = self._item()
        match = _QUANTIFIER.match(self._text, self.at)
        if match is None:
            return item
        if item in (START, END):
            raise self.error(f"{match[0]!r} has nothing to repeat")
        sign, least, comma, most = match.groups()
        if sign:
            low, high = (1 if sign == "+" else 0), (1 if sign == "?" else None)
        else:
            low = int(least)
            high = (int(most) if most else None) if comma else low
        if high is not None and low > high:
            raise self.error(f"{match[0]!r} asks for at least {low} and at most {high}")
        if max(low, high or 0) > MAX_REPETITIONS:
            raise self.error(f"{match[0]!r} is more than {MAX_REPETITIONS:,} repetitions")
        self.at = match.end()
        if _QUANTIFIER.match(self._text, self.at):
            raise self.error("a quantifier follows a quantifier")
        return repeat(item, low, high)

    def _item(self) -> Expr:
        character = self._text[self.at]
        if character in "*+?" or _QUANTIFIER.match(self._text, self.at):
            raise self.error(f"{character!r} has nothing to repeat")
        self.at += 1
        match character:
            case "^":
                return START
            case "$":
                return END
            case ".":
                return Chars(without(_ALL, _LINE_ENDS))
            case "[":
                return self._class()
            case "(":
                return self._group()
            case "\\":
                return self._followable(self._escape(in_class=False))
        return Chars(((ord(character), ord(character)),))

    def _group(self) -> Expr:
        self._depth += 1
        if self._depth > MAX_GROUPS_DEEP:
            raise self.error(f"groups lie more than {MAX_GROUPS_DEEP} deep in each other")
        if self._take("?") and not self._take(":"):
            name = _GROUP_NAME.match(self._text, self.at)
            if name is None:
                what = self._text[self.at - 2 : self.at + 2]
                raise UnsupportedPatternError(f"a grammar cannot follow '{what}...'")
            self.at = name.end()
        inside = self.alternatives()
        if not self._take(")"):
            raise self.error("a '(' is not closed")
        self._depth -= 1
        return inside

    def _class(self) -> Expr:
        negated = self._take("^")
        found: list[tuple[int, int]] = []
        escapes: set[str] = set()
        while not self._take("]"):
            escapes.add(self._text[self.at : self.at + 2])
            ranges = self._class_atom()
            if self._text[self.at : self.at + 1] == "-" and self._text[self.at + 1 :][:1] != "]":
                self.at += 1
                ranges = self._class_range(ranges, self._class_atom())
            found += ranges
        if any(pair <= escapes for pair in _OPPOSITES):
            found = list(_ALL)
        union = chars(*found)
        positive = union.ranges if isinstance(union, Chars) else ()
        return self._followable(without(_ALL, positive) if negated else positive)

    def _followable(self, ranges: Ranges) -> Expr:
        if ranges and followable(ranges) == NOTHING:
            raise UnsupportedPatternError(
                f"a grammar cannot follow that many characters (at character {self.at})"
            )
        return chars(*ranges)

    def _class_atom(self) -> Ranges:
        if self.at >= len(self._text):
            raise self.error("a '[' is not closed")
        character = self._text[self.at]
        self.at += 1
        if character == "\\":
            return self._escape(in_class=True)
        return ((ord(character), ord(character)),)

    def _class_range(self, first: Ranges, last: Ranges) -> Ranges:
        low, high = first[0][0], last[-1][1]
        if len(first) > 1 or len(last) > 1 or first[0][1] != low or last[0][0] != high:
            raise self.error("a range needs one character on each side")
        if low > high:
            raise self.error(f"the range {chr(low)!r} to {chr(high)!r} is the wrong way round")
        return ((low, high),)

    def _escape(self, *, in_class: bool) -> Ranges:
        character = self._text[self.at : self.at + 1]
        if not character:
            raise self.error("a '\\' is the last character")
        match = _HEX.match(self._text, self.at)
        if match:
            self.at = match.end()
            code = int(next(filter(None, match.groups())), 16)
            if code > MAX_CODE_POINT:
                raise self.error(f"there is no character {match[0]}")
            return ((code, code),)
        self.at += 1
        if character in _CLASSES:
            return _CLASSES[character]
        if character == "b" and in_class:
            return ((8, 8),)
        if character in _UNSUPPORTED_ESCAPES:
            raise UnsupportedPatternError(f"a grammar cannot follow '\\{character}'")
        if character == "c" and re.match("[A-Za-z]", self._text[self.at :]):
            self.at += 1
            return ((ord(self._text[self.at - 1]) % 32,) * 2,)
        if character.isalnum() and character not in _CONTROLS:
            raise self.error(f"'\\{character}' is no escape")
        code = _CONTROLS.get(character, ord(character))
        return ((code, code),)

    def _take(self, expected: str) -> bool:
        if self._text[self.at : self.at + 1] != expected:
            return False
        self.at += 1
        return True
