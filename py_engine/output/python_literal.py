"""Keyword arguments of a Python call whose values are literals, to what JSON has.

Written by hand on top of `ast.literal_eval` for single strings and numbers: Python's whole parser
can be made to overflow its stack by text of a few kilobytes, and that ends a browser's worker.
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from py_engine.output.call import MalformedCall

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>[rRuU]?"(?:[^"\\\n]|\\.)*"|[rRuU]?'(?:[^'\\\n]|\\.)*')
      | (?P<number>[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?)
      | (?P<word>[^\W\d]\w*)
      | (?P<mark>[\[\](){},:=])
    )""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {
    "True": True,
    "False": False,
    "None": None,
    # Models write JSON's own words too.
    "true": True,
    "false": False,
    "null": None,
}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def parsed_keywords(text: str) -> dict[str, Any]:
    """Return the arguments in `text`, such as `a=1, b=["x"]`, by name.

    The text's brackets match and are not nested deeply (see Span).
    Errors: MalformedCall for anything but names with literals that JSON can carry.
    """
    tokens = _Tokens(text)
    arguments: dict[str, Any] = {}
    while not tokens.at_end:
        name = tokens.take("word")
        tokens.take("mark", "=")
        if name in arguments:
            raise MalformedCall
        arguments[name] = tokens.value()
        if not tokens.at_end:
            tokens.take("mark", ",")
    return arguments


class _Tokens:
    def __init__(self, text: str) -> None:
        self._tokens = _split(text)
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._tokens)

    def take(self, kind: str, wanted: str | None = None) -> str:
        """Return the next token's text, which must be of that kind and text."""
        if self.at_end or self._tokens[self._at][0] != kind:
            raise MalformedCall
        text = self._tokens[self._at][1]
        if wanted is not None and text != wanted:
            raise MalformedCall
        self._at += 1
        return text

    def value(self) -> Any:
        kind = "" if self.at_end else self._tokens[self._at][0]
        if kind == "word":
            return _word(self.take("word"))
        if kind in ("string", "number"):
            return self._atom(kind)
        return self._collection(self.take("mark"))

    def _atom(self, kind: str) -> Any:
        value = _literal(self.take(kind))
        while kind == "string" and not self.at_end and self._tokens[self._at][0] == "string":
            value += _literal(self.take("string"))
        return value

    def _collection(self, opening: str) -> Any:
        if opening not in _CLOSING:
            raise MalformedCall
        items: list[Any] = []
        while not self._take_if(_CLOSING[opening]):
            if items:
                self.take("mark", ",")
                if self._take_if(_CLOSING[opening]):
                    break
            items.append(self._pair() if opening == "{" else self.value())
        return dict(items) if opening == "{" else items

    def _pair(self) -> tuple[str, Any]:
        key = self.value()
        if not isinstance(key, str):
            raise MalformedCall
        self.take("mark", ":")
        return key, self.value()

    def _take_if(self, mark: str) -> bool:
        found = not self.at_end and self._tokens[self._at] == ("mark", mark)
        self._at += found
        return found


def _split(text: str) -> list[tuple[str, str]]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise MalformedCall
        tokens.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return tokens


def _word(word: str) -> bool | None:
    if word not in _WORDS:
        raise MalformedCall
    return _WORDS[word]


def _literal(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise MalformedCall from error
    if isinstance(value, float) and not math.isfinite(value):
        raise MalformedCall
    return value
