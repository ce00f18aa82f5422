"""JSON numbers between two bounds as grammars of digits."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

from py_engine.grammar.expressions import (
    EMPTY,
    NOTHING,
    Expr,
    Text,
    alt,
    chars,
    repeat,
    seq,
)

Bound: TypeAlias = tuple[Decimal, bool]
"""A bound and whether it is excluded."""

MAX_DIGITS = 18
"""Digits that a number without a bound may have on either side of its point."""
MAX_FRACTION = 9
"""Digits after the point of a number between bounds: few enough that f64 keeps them apart."""


def _digits(low: str, high: str) -> Expr:
    return chars((ord(low), ord(high)))


_DIGIT = _digits("0", "9")


def integers(low: int | None, high: int | None) -> Expr:
    """Return the integers from `low` to `high`, each None for no bound."""
    return _signed(_below_zero_integers(low, high), _from_zero(max(0, low or 0), high))


def _below_zero_integers(low: int | None, high: int | None) -> Expr:
    if low is not None and low >= 0:
        return NOTHING
    least = 1 if high is None or high >= 0 else -high
    return _from_zero(least, None if low is None else -low)


def _signed(below_zero: Expr, others: Expr) -> Expr:
    return alt(others, seq(Text("-"), below_zero))


def _from_zero(low: int, high: int | None) -> Expr:
    """Return the integers from `low`, which is not below 0, to `high`."""
    if high is not None and high < low:
        return NOTHING
    first, last = str(low), "9" * len(str(low)) if high is None else str(high)
    if len(first) == len(last):
        found = [_of_same_length(first, last)]
    else:
        found = [_of_same_length(first, "9" * len(first))]
        if len(last) - len(first) > 1:
            between = repeat(_DIGIT, len(first), len(last) - 2)
            found.append(seq(_digits("1", "9"), between))
        found.append(_of_same_length("1" + "0" * (len(last) - 1), last))
    if high is None:
        longer = repeat(_DIGIT, len(first), max(len(first), MAX_DIGITS - 1))
        found.append(seq(_digits("1", "9"), longer))
    return alt(*found)


def _of_same_length(low: str, high: str) -> Expr:
    """Return the digits between two texts of as many digits."""
    if not low:
        return EMPTY
    rest = len(low) - 1
    if set(low) == {"0"} and set(high) == {"9"}:
        return repeat(_DIGIT, len(low), len(low))
    if low[0] == high[0]:
        return seq(Text(low[0]), _of_same_length(low[1:], high[1:]))
    found = [seq(Text(low[0]), _of_same_length(low[1:], "9" * rest))]
    if int(high[0]) - int(low[0]) > 1:
        inner = _digits(str(int(low[0]) + 1), str(int(high[0]) - 1))
        found.append(seq(inner, repeat(_DIGIT, rest, rest)))
    found.append(seq(Text(high[0]), _of_same_length("0" * rest, high[1:])))
    return alt(*found)


def numbers(low: Bound | None, high: Bound | None) -> Expr:
    """Return the numbers between two bounds, without exponents, each None for no bound."""
    zero = (Decimal(0), False)
    others: Expr = NOTHING
    if high is None or high[0] >= 0:
        others = _from_zero_numbers(zero if low is None or low[0] < 0 else low, high)
    below_zero: Expr = NOTHING
    if low is None or low[0] < 0:
        nearest = (Decimal(0), True) if high is None or high[0] > 0 else (-high[0], high[1])
        farthest = None if low is None else (-low[0], low[1])
        below_zero = _from_zero_numbers(nearest, farthest)
    return _signed(below_zero, others)


def _from_zero_numbers(low: Bound, high: Bound | None) -> Expr:
    low_whole, low_fraction = _parts(low[0])
    if high is None:
        return alt(
            seq(Text(str(low_whole)), _fraction_from(low_fraction, low[1])),
            seq(_from_zero(low_whole + 1, None), _any_fraction()),
        )
    high_whole, high_fraction = _parts(high[0])
    if low_whole == high_whole:
        between = _fraction_between(low_fraction, low[1], high_fraction, high[1])
        return seq(Text(str(low_whole)), between)
    if low_whole > high_whole:
        return NOTHING
    return alt(
        seq(Text(str(low_whole)), _fraction_from(low_fraction, low[1])),
        seq(_from_zero(low_whole + 1, high_whole - 1), _any_fraction()),
        seq(Text(str(high_whole)), _fraction_to(high_fraction, high[1])),
    )


def _parts(value: Decimal) -> tuple[int, str]:
    """Return the integer and the digits after the point, the last of them not 0."""
    whole, _, fraction = format(value, "f").partition(".")
    return int(whole), fraction.rstrip("0")


def _any_fraction() -> Expr:
    return alt(EMPTY, seq(Text("."), repeat(_DIGIT, 1, MAX_FRACTION)))


def _fraction_from(least: str, excluded: bool) -> Expr:
    """Return the fractions, with their point, that are at least 0.`least`."""
    with_point = seq(Text("."), _at_least(least, excluded, MAX_FRACTION))
    return with_point if least or excluded else alt(EMPTY, with_point)


def _at_least(least: str, excluded: bool, room: int) -> Expr:
    """Return one to `room` digits that are no less than `least`, or more where it is excluded."""
    room = max(room, len(least) + 1)
    if not least:
        if not excluded:
            return repeat(_DIGIT, 1, room)
        zeros = repeat(Text("0"), 0, room - 1)
        return seq(zeros, _digits("1", "9"), repeat(_DIGIT, 0, room - 1))
    found = []
    if least[0] < "9":
        more = _digits(str(int(least[0]) + 1), "9")
        found.append(seq(more, repeat(_DIGIT, 0, room - 1)))
    rest = _at_least(least[1:], excluded, room - 1)
    found.append(seq(Text(least[0]), rest))
    if len(least) == 1 and not excluded:
        found.append(Text(least[0]))
    return alt(*found)


def _fraction_to(most: str, excluded: bool) -> Expr:
    """Return the fractions, with their point, that are at most 0.`most`."""
    with_point = seq(Text("."), _at_most(most, excluded, MAX_FRACTION))
    return with_point if not most and excluded else alt(EMPTY, with_point)


def _at_most(most: str, excluded: bool, room: int) -> Expr:
    """Return one to `room` digits that are no more than `most`, or less where it is excluded."""
    room = max(room, len(most) + 1)
    if not most:
        return NOTHING if excluded else repeat(Text("0"), 1, room)
    found = []
    if most[0] > "0":
        less = _digits("0", str(int(most[0]) - 1))
        found.append(seq(less, repeat(_DIGIT, 0, room - 1)))
    found.append(seq(Text(most[0]), _at_most(most[1:], excluded, room - 1)))
    if len(most) > 1 or not excluded:
        found.append(Text(most[0]))
    return alt(*found)


def _fraction_between(least: str, low_excluded: bool, most: str, high_excluded: bool) -> Expr:
    """Return the fractions, with their point, between two of the same integer."""
    if least > most or (least == most and (low_excluded or high_excluded)):
        return NOTHING
    if least == most:
        zeros = repeat(Text("0"), 0, MAX_FRACTION)
        return alt(EMPTY, seq(Text("."), zeros, Text("0"))) if not most else Text(f".{most}")
    if not least:
        within = _at_most(most, high_excluded, MAX_FRACTION)
        if not low_excluded:
            return alt(EMPTY, seq(Text("."), within))
        return seq(Text("."), _digits_between("", True, most, high_excluded, MAX_FRACTION))
    return seq(Text("."), _digits_between(least, low_excluded, most, high_excluded, MAX_FRACTION))


def _digits_between(
    least: str, low_excluded: bool, most: str, high_excluded: bool, room: int
) -> Expr:
    """Return the digits between `least` and the larger `most`."""
    first, last = (least or "0")[0], (most or "0")[0]
    may_stop = [Text(first)] if len(least) == 1 and not low_excluded else []
    if first == last:
        inner_room = max(room - 1, len(most))
        rest = _digits_between(least[1:], low_excluded, most[1:], high_excluded, inner_room)
        return alt(seq(Text(first), rest), *may_stop)
    found = [seq(Text(first), _at_least(least[1:], low_excluded, room - 1)), *may_stop]
    if int(last) - int(first) > 1:
        inner = _digits(str(int(first) + 1), str(int(last) - 1))
        found.append(seq(inner, repeat(_DIGIT, 0, room - 1)))
    found.append(seq(Text(last), _at_most(most[1:], high_excluded, room - 1)))
    if len(most) > 1 or not high_excluded:
        found.append(Text(last))
    return alt(*found)
