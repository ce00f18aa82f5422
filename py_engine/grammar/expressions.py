"""Grammars as trees: expressions, and the rules that they are the bodies of.

Trees are simplified as they are made, so that what no text can match (`NOTHING`) never reaches the
library, where it would be a dead end in the middle of a reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

MAX_CODE_POINT = 0x10FFFF

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Inclusive ranges of code points."""


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
"""The empty text."""
NOTHING = Alt(())
"""What no text matches."""


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
