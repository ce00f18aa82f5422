"""Numbers between bounds: exactly those, checked on patterns made of the grammars."""

from __future__ import annotations

import random
import re
from decimal import Decimal

from py_engine.grammar.expressions import Alt, Chars, Expr, Repeat, Seq, Text
from py_engine.grammar.numbers import Bound, integers, numbers


def pattern(expr: Expr) -> str:
    """Return the regular expression of a grammar without rules."""
    match expr:
        case Text(text):
            return re.escape(text)
        case Chars(ranges):
            return "[" + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges) + "]"
        case Seq(items):
            return "".join(map(pattern, items))
        case Alt(items):
            return f"(?:{'|'.join(map(pattern, items))})" if items else "(?!)"
        case Repeat(item, low, high):
            return f"(?:{pattern(item)}){{{low},{'' if high is None else high}}}"
    raise AssertionError(expr)


def test_integers_are_exactly_those_between_the_bounds() -> None:
    chance = random.Random(2)
    texts = [str(value) for value in [*range(-1200, 1201, 7), *range(-130, 131), 12345, -12345]]
    for _ in range(150):
        low, high = (chance.choice([None, chance.randint(-1100, 1100)]) for _ in range(2))
        matches = re.compile(pattern(integers(low, high))).fullmatch
        for text in texts:
            value = int(text)
            is_inside = (low is None or value >= low) and (high is None or value <= high)
            assert bool(matches(text)) is is_inside, (low, high, text)
        assert not matches("-0") and not matches("007")


def test_numbers_are_all_between_the_bounds() -> None:
    chance = random.Random(3)
    ends = ("", ".0", ".1", ".2", ".25", ".24", ".26", ".2500001", ".5", ".9", ".99", ".05")
    texts = [f"{sign}{whole}{end}" for sign in ("", "-") for whole in range(14) for end in ends]

    def bound() -> Bound | None:
        values = [f"{chance.uniform(-12, 12):.1f}", "0", "1", "0.25", "-0.25", "-3"]
        return chance.choice([None, (Decimal(chance.choice(values)), chance.random() < 0.5)])

    for _ in range(300):
        low, high = bound(), bound()
        matches = re.compile(pattern(numbers(low, high))).fullmatch
        for text in texts:
            value = Decimal(text)
            above = low is None or value > low[0] or (value == low[0] and not low[1])
            below = high is None or value < high[0] or (value == high[0] and not high[1])
            if text.startswith("-") and value == 0:
                assert not matches(text) or (above and below)
            else:
                assert bool(matches(text)) is (above and below), (low, high, text)
