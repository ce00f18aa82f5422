"""What a reply must look like, as a request says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GrammarKind = Literal["json", "json_schema", "ebnf", "regex", "structural_tag"]


@dataclass(frozen=True)
class GrammarSpec:
    """One grammar; equal specs are compiled once.

    `text` is nothing for "json" (any object or array), the schema as JSON for "json_schema", the
    grammar in GBNF's notation with the root rule "root" for "ebnf", the pattern for "regex", and
    the tag as JSON for "structural_tag". `strict` is for "json_schema": objects have no properties
    and arrays no items but those that the schema names.
    """

    kind: GrammarKind
    text: str = ""
    strict: bool = True
