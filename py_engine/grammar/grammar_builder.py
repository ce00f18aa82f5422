"""A grammar in the making."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from py_engine.grammar.expressions import EMPTY, NOTHING, Expr, Rule, Text
from py_engine.grammar.schema_check import Schema

ExprOf: TypeAlias = Callable[[Schema, str], Expr]
"""Makes the grammar of a subschema; the text is its path, for messages."""


@dataclass
class GrammarBuilder:
    """The rules so far by name, and the keywords that they do not see to: (where, why)."""

    rules: dict[str, Expr] = field(default_factory=dict)
    ignored: list[tuple[str, str]] = field(default_factory=list)

    def add_rule(self, expr: Expr) -> Expr:
        """Give an expression that is used in several places a rule, unless it is as short."""
        if isinstance(expr, Rule | Text) or expr in (EMPTY, NOTHING):
            return expr
        name = f"rule_{len(self.rules)}"
        self.rules[name] = expr
        return Rule(name)

    def ignore(self, where: str, why: str) -> None:
        """Note a keyword that the grammar does not see to."""
        self.ignored.append((where, why))
