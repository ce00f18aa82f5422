"""The keywords of strings: format, pattern, minLength, maxLength."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from py_engine.grammar.expressions import Expr, repeat, seq
from py_engine.grammar.grammar_builder import GrammarBuilder
from py_engine.grammar.json_rules import CHAR, QUOTE, STRING
from py_engine.grammar.pattern_parser import UnsupportedPatternError
from py_engine.grammar.patterns import in_json_string
from py_engine.grammar.schema_check import count_range
from py_engine.grammar.string_formats import FORMATS

STRING_KEYWORDS = ("format", "pattern", "minLength", "maxLength")


def string_expr(schema: Mapping[str, Any], where: str, builder: GrammarBuilder) -> Expr:
    """Return the strings of a well-formed schema; of several keywords the first is followed."""
    given = [keyword for keyword in STRING_KEYWORDS if keyword in schema]
    if "format" in given and schema["format"] not in FORMATS:
        given.remove("format")
        known = ", ".join(FORMATS)
        why = f"the format {schema['format']!r} is not known. There are: {known}"
        builder.ignore(f"{where}.format", why)
    if not given:
        return STRING
    pattern = ""
    if given[0] in ("format", "pattern"):
        pattern = FORMATS[schema["format"]] if given[0] == "format" else schema["pattern"]
        for keyword in given[1:]:
            builder.ignore(f"{where}.{keyword}", f"it stands beside {given[0]}")
    if not pattern:
        inside = repeat(CHAR, *count_range(schema, "Length"))
    else:
        try:
            inside = in_json_string(pattern)
        except UnsupportedPatternError as error:
            builder.ignore(f"{where}.pattern", str(error))
            return STRING
    return seq(QUOTE, builder.add_rule(inside), QUOTE)
