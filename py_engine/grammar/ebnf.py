"""What must not reach xgrammar's EBNF parser, although it reads it.

It writes out repetitions inside repetitions, which takes for ever, and runs out of its stack, which
damages its memory, where parentheses lie deep in each other.
"""

from __future__ import annotations

import re

from py_engine.errors import InvalidResponseFormatGrammarError
from py_engine.grammar.ebnf_writer import to_ebnf
from py_engine.grammar.pattern_parser import PatternError
from py_engine.grammar.patterns import whole_text
from py_engine.json_values import shown

MAX_TEXT = 500_000
MAX_DEPTH = 50
MAX_WRITTEN_OUT = 100_000
"""Elements that repeated groups may come to in all."""

_TOKEN = re.compile(
    r"#[^\n]*|(?P<rule>[\w.-]+\s*::=)"
    r'|(?P<element>"(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\\n])*\]|[\w.-]+)'
    r"|(?P<times>\{\s*(?P<low>\d+)\s*(?P<comma>,\s*(?P<high>\d+)?)?\s*\})|[()]"
)


def check_ebnf(text: str, where: str) -> None:
    """Refuse a grammar that could hang or damage the parser; all else is the parser's to refuse.

    Errors: InvalidResponseFormatGrammarError.
    """
    if len(text) > MAX_TEXT:
        raise InvalidResponseFormatGrammarError(
            f"{where} has {len(text):,} characters, but at most {MAX_TEXT:,} can be compiled. Make "
            "the grammar smaller."
        )
    _check_structure(text, where)


def _check_structure(text: str, where: str) -> None:
    """Follow the parentheses and count what repeated groups come to when written out."""
    sizes, last, is_group, written_out = [0], 0, False, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "(":
            sizes.append(0)
            if len(sizes) > MAX_DEPTH:
                raise InvalidResponseFormatGrammarError(
                    f"{where} has parentheses more than {MAX_DEPTH} deep in each other. Give inner "
                    "parts rules of their own."
                )
        elif token == ")" and len(sizes) > 1:
            last, is_group = sizes.pop(), True
            sizes[-1] += last
        elif match["times"]:
            times = int((match["high"] if match["comma"] else "") or match["low"])
            size = last * max(1, times)
            sizes[-1] += size - last
            written_out += size if is_group else 0
            last = size
        elif match["rule"]:
            sizes = [0]
        elif match["element"]:
            last, is_group = 1, False
            sizes[-1] += 1
        if written_out > MAX_WRITTEN_OUT:
            raise InvalidResponseFormatGrammarError(
                f"{where} has repetitions inside repetitions, more than {MAX_WRITTEN_OUT:,} in "
                'all. Give what is repeated inside a rule of its own: inner ::= "a"{1,300}.'
            )


def regex_ebnf(pattern: str, where: str = "regular expression") -> str:
    """Return the EBNF of the texts that match a pattern from beginning to end.

    Errors: InvalidResponseFormatGrammarError.
    """
    try:
        return to_ebnf({"root": whole_text(pattern)})
    except PatternError as error:
        raise InvalidResponseFormatGrammarError(
            f"{where} is {shown(pattern)}, which no grammar can be made of: {error}. Correct or "
            "simplify it."
        ) from error
