"""Grammars as the EBNF text that xgrammar 0.1.27 reads, past what it reads wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from py_engine.grammar.expressions import (
    EMPTY,
    MAX_CODE_POINT,
    Alt,
    Chars,
    Expr,
    Ranges,
    Repeat,
    Rule,
    Seq,
    Text,
    alt,
    seq,
    without,
)

MAX_LISTED = 1_000
"""Characters beyond ASCII that a class may have to be written out one by one."""

_ASCII: Ranges = ((0, 0x7F),)
_BEYOND_ASCII: Ranges = ((0x80, MAX_CODE_POINT),)
_SURROGATES: Ranges = ((0xD800, 0xDFFF),)
_EUROPEAN_END = 0x250  # of Unicode's block Latin Extended-B
_NOTHING_MORE = Rule("nothing_more")


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
                return _quoted(text)
            case Chars(((low, high),)) if low == high:
                return _quoted(chr(low))
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
        ascii_part = without(expr.ranges, _BEYOND_ASCII)
        if expr.ranges == ascii_part:
            return f"[{_listed(ascii_part)}]"
        forbidden = without(_ASCII, ascii_part)
        if not forbidden:
            return self._own_rule(Alt((Chars(_ASCII), Chars(_BEYOND_ASCII))))
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


def _quoted(text: str) -> str:
    """Return `text` as an EBNF string."""
    return f'"{"".join(map(_escaped, map(ord, text)))}"'


def followable(ranges: Ranges) -> Expr:
    """Return what xgrammar can follow of a set of characters, NOTHING if that is none of it.

    xgrammar 0.1.27's classes are right only where they hold all characters beyond ASCII or none of
    them. A few others are listed one by one; of many only those of European languages are.
    """
    ascii_part = without(ranges, _BEYOND_ASCII)
    beyond = without(ranges, _ASCII)
    if not beyond or beyond == without(_BEYOND_ASCII, _SURROGATES) or beyond == _BEYOND_ASCII:
        return Chars((*ascii_part, *(_BEYOND_ASCII if beyond else ())))
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
