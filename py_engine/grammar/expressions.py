"""Grammars as trees, and the EBNF text that xgrammar reads.

Trees are simplified as they are made, so that what no text can match (`NOTHING`) never reaches the
library, where it would be a dead end in the middle of a reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

MAX_CODE_POINT = 0x10FFFF

Ranges: TypeAlias = tuple[tuple[int, int], ...]

MAX_LISTED = 1_000
BEYOND_ASCII: Ranges = ((0x80, MAX_CODE_POINT),)
_ASCII: Ranges = ((0, 0x7F),)
_SURROGATES: Ranges = ((0xD800, 0xDFFF),)
_EUROPEAN_END = 0x250


@dataclass(frozen=True)
class Text:
    """Exactly this text."""

    text: str


@dataclass(frozen=True)
class Chars:
    """One character out of inclusive ranges of code points, which are sorted and do not touch."""

    ranges: Ranges


@dataclass(frozen=True)
class Rule:
    """What the rule of this name matches."""

    name: str


@dataclass(frozen=True)
class Seq:
    """One expression after the other; none at all is the empty text."""

    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Alt:
    """Any one of the expressions; where there is none, nothing matches."""

    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Repeat:
    """An expression `low` to `high` times (None: without end)."""

    item: Expr
    low: int
    high: int | None


Expr: TypeAlias = Text | Chars | Rule | Seq | Alt | Repeat

EMPTY = Seq(())
_NOTHING_MORE = Rule("nothing_more")
NOTHING = Alt(())


def chars(*ranges: tuple[int, int]) -> Expr:
    """Return one character out of the ranges, which may overlap."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(each for each in ranges if each[0] <= each[1]):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return Chars(tuple(merged)) if merged else NOTHING


def without(ranges: Ranges, removed: Ranges) -> Ranges:
    """Return the ranges less those of `removed`; both are as in `Chars`."""
    left = list(ranges)
    for low, high in removed:
        left = [
            part
            for start, end in left
            for part in ((start, min(end, low - 1)), (max(start, high + 1), end))
            if part[0] <= part[1]
        ]
    return tuple(left)


def seq(*items: Expr) -> Expr:
    """Return the expressions one after the other."""
    flat: list[Expr] = []
    for item in items:
        flat += item.items if isinstance(item, Seq) else (item,)
    if NOTHING in flat:
        return NOTHING
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))


def alt(*items: Expr) -> Expr:
    """Return any one of the expressions."""
    flat: list[Expr] = []
    for item in items:
        flat += item.items if isinstance(item, Alt) else (item,)
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Alt(unique)


def repeat(item: Expr, low: int, high: int | None) -> Expr:
    """Return the expression `low` to `high` times; NOTHING where there is no such number."""
    if high is not None and (high < low or high < 0):
        return NOTHING
    if item == NOTHING or high == 0:
        return EMPTY if low == 0 else NOTHING
    return item if (low, high) == (1, 1) else Repeat(item, low, high)


def optional(item: Expr) -> Expr:
    """Return the expression or the empty text."""
    return alt(item, EMPTY)


def finite(rules: Mapping[str, Expr], known: Iterable[str] = ()) -> dict[str, Expr]:
    """Return the rules without the parts that have no finite text; those rules become NOTHING.

    `known` are names of other rules, which do have one.
    """
    found = set(known)
    while True:
        new = {name for name, body in rules.items() if name not in found and _ends(body, found)}
        if not new:
            break
        found |= new
    return {name: _pruned(body, found) for name, body in rules.items()}


def _ends(expr: Expr, found: set[str]) -> bool:
    match expr:
        case Rule(name):
            return name in found
        case Seq(items):
            return all(_ends(item, found) for item in items)
        case Alt(items):
            return any(_ends(item, found) for item in items)
        case Repeat(item, low, _):
            return low == 0 or _ends(item, found)
    return True


def _pruned(expr: Expr, found: set[str]) -> Expr:
    match expr:
        case Rule(name):
            return expr if name in found else NOTHING
        case Seq(items):
            return seq(*(_pruned(item, found) for item in items))
        case Alt(items):
            return alt(*(_pruned(item, found) for item in items))
        case Repeat(item, low, high):
            return repeat(_pruned(item, found), low, high)
    return expr


def to_ebnf(rules: Mapping[str, Expr], fixed_rules: str = "") -> str:
    """Return rules as EBNF text, `fixed_rules` (EBNF) after them.

    Whatever is repeated gets a rule of its own: xgrammar writes out nested repetitions, which takes
    it for ever, but keeps repetitions of rules as counters.
    """
    writer = _Writer(dict(rules))
    return "".join(f"{line}\n" for line in writer.lines()) + fixed_rules


class _Writer:
    def __init__(self, rules: dict[str, Expr]) -> None:
        self._waiting = rules
        self._names: dict[Expr, str] = {}

    def lines(self) -> Iterator[str]:
        while self._waiting:
            name = next(iter(self._waiting))
            yield f"{name} ::= {self._body(self._waiting.pop(name))}"

    def _body(self, expr: Expr) -> str:
        if isinstance(expr, Alt):
            expr = factored(expr)
        if not isinstance(expr, Alt):
            return self._inner(expr)
        beyond = [item for item in expr.items if _begins_beyond_ascii(item)]
        if len(beyond) < 2:
            return " | ".join(self._inner(item) for item in expr.items)
        # Different characters may share a first byte. A rule that holds a rule is never inlined.
        if _NOTHING_MORE not in self._names:
            self._names[_NOTHING_MORE] = _NOTHING_MORE.name
            self._waiting[_NOTHING_MORE.name] = EMPTY
        apart = {item: self._own_rule(seq(item, _NOTHING_MORE)) for item in beyond}
        return " | ".join(apart.get(item) or self._inner(item) for item in expr.items)

    def _inner(self, expr: Expr) -> str:
        match expr:
            case Text(text):
                return quoted(text)
            case Chars(((low, high),)) if low == high:
                return quoted(chr(low))
            case Chars(ranges):
                return self._class(ranges)
            case Rule(name):
                return name
            case Seq(items):
                return " ".join(self._atom(item) for item in items) or '""'
            case Repeat(item, low, high):
                return self._atom(item) + _times(low, high)
        return self._own_rule(expr)

    def _class(self, ranges: Ranges) -> str:
        expr = followable(ranges)
        if not isinstance(expr, Chars):
            return self._inner(expr)
        ascii_part = without(expr.ranges, BEYOND_ASCII)
        if expr.ranges == ascii_part:
            return f"[{_listed(ascii_part)}]"
        forbidden = without(_ASCII, ascii_part)
        if not forbidden:
            return self._own_rule(Alt((Chars(_ASCII), Chars(BEYOND_ASCII))))
        return f"[^{_listed(forbidden)}]"

    def _atom(self, expr: Expr) -> str:
        if isinstance(expr, Seq | Alt | Repeat):
            return self._own_rule(expr)
        return self._inner(expr)

    def _own_rule(self, expr: Expr) -> str:
        if expr not in self._names:
            self._names[expr] = name = f"part_{len(self._names)}"
            self._waiting[name] = expr
        return self._names[expr]


def factored(choice: Alt) -> Expr:
    """Return the same choice of expressions that all begin differently.

    xgrammar 0.1.27 mixes up alternatives that share a beginning with ones that share an end: of
    "bca" | "cca" | "ccb" it makes a grammar that has "bcb", too.
    """
    groups: dict[Expr, list[Expr]] = {}
    for item in choice.items:
        first, rest = _split(item)
        groups.setdefault(first, []).append(rest)
    found = []
    for first, rests in groups.items():
        shared = ""
        if all(isinstance(rest, Text) for rest in rests):
            texts = [rest.text for rest in rests if isinstance(rest, Text)]
            shared = _common_start(min(texts), max(texts))
            rests = [Text(text[len(shared) :]) if text != shared else EMPTY for text in texts]
        begin = Text(first.text + shared) if isinstance(first, Text) else first
        found.append(seq(begin, alt(*rests)))
    return alt(*found)


def _begins_beyond_ascii(expr: Expr) -> bool:
    first, _ = _split(expr)
    return isinstance(first, Text) and first.text >= "\x80"


def _common_start(left: str, right: str) -> str:
    same = (a == b for a, b in zip(left, right, strict=False))
    length = next((index for index, is_same in enumerate(same) if not is_same), None)
    return left[:length] if length is not None else min(left, right, key=len)


def _split(expr: Expr) -> tuple[Expr, Expr]:
    """Return what an expression begins with, one character of a text, and what follows."""
    match expr:
        case Text(text) if len(text) > 1:
            return Text(text[0]), Text(text[1:])
        case Chars(((low, high),)) if low == high:
            return Text(chr(low)), EMPTY
        case Seq((head, *others)):
            first, rest = _split(head)
            return first, seq(rest, *others)
    return expr, EMPTY


def _times(low: int, high: int | None) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    return short.get((low, high)) or f"{{{low},{'' if high is None else high}}}"


def quoted(text: str) -> str:
    """Return `text` as an EBNF string."""
    return f'"{"".join(map(_escaped, map(ord, text)))}"'


def followable(ranges: Ranges) -> Expr:
    """Return what xgrammar can follow of a set of characters, NOTHING if that is none of it.

    xgrammar 0.1.27's classes are right only where they hold all characters beyond ASCII or none of
    them. A few others are listed one by one; of many only those of European languages are.
    """
    ascii_part = without(ranges, BEYOND_ASCII)
    beyond = without(ranges, _ASCII)
    if not beyond or beyond == without(BEYOND_ASCII, _SURROGATES) or beyond == BEYOND_ASCII:
        return Chars((*ascii_part, *(BEYOND_ASCII if beyond else ())))
    beyond = without(beyond, _SURROGATES)
    if sum(high - low + 1 for low, high in beyond) > MAX_LISTED:
        beyond = without(beyond, ((_EUROPEAN_END, MAX_CODE_POINT),))
    listed = (Text(chr(code)) for low, high in beyond for code in range(low, high + 1))
    return alt(*([Chars(ascii_part)] if ascii_part else []), *listed)


def _listed(ranges: Ranges) -> str:
    return "".join(_range(low, high) for low, high in ranges)


def _range(low: int, high: int) -> str:
    return _escaped(low) if low == high else f"{_escaped(low)}-{_escaped(high)}"


def _escaped(code: int) -> str:
    if code < 0x80 and chr(code).isalnum():
        return chr(code)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
