"""Special tokens' texts inside messages: they are text, and cannot end a turn or begin one.

Before rendering, each of them is marked after its first character with a character that Unicode
reserves for such use; after rendering, the text is cut at the marks, so that no part holds the
token's text whole. Only the token's inside is marked, so that a template cannot part the mark from
it. Special tokens that a template writes itself stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
_REPLACEMENT = "\ufffd"
_PREFIX_LENGTH = 4


class ControlTokens:
    """Finds the texts of a tokenizer's special tokens; those of one character cannot be cut."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = frozenset(token for token in tokens if len(token) > 1)
        lengths: dict[str, set[int]] = {}
        for token in self._tokens:
            lengths.setdefault(token[:_PREFIX_LENGTH], set()).add(len(token))
        self._lengths = {prefix: sorted(found) for prefix, found in lengths.items()}
        # Vocabularies have up to thousands of these, but few beginnings of them.
        longest_first = sorted(self._lengths, key=len, reverse=True)
        self._prefix = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def mark(self, *values: Any) -> MarkedValues:
        """Return copies of plain data in which they are marked, in keys and values.

        A message's `role` is left alone, as it chooses what a template writes.
        """
        strings = [text for value in values for text in _strings(value)]
        if not any(map(self._occurs, strings)):
            return MarkedValues(values, "")
        mark = _unused_mark(strings)
        return MarkedValues(tuple(self._marked(value, mark) for value in values), mark)

    def _occurs(self, text: str) -> bool:
        return next(self._starts(text), None) is not None

    def _starts(self, text: str) -> Iterator[int]:
        """Yield where a special token's text begins."""
        match = self._prefix.search(text)
        while match is not None:
            start = match.start()
            if any(text[start : start + size] in self._tokens for size in self._sizes(match[0])):
                yield start
            match = self._prefix.search(text, start + 1)

    def _sizes(self, found: str) -> Iterator[int]:
        for size in range(2, len(found) + 1):
            yield from self._lengths.get(found[:size], ())

    def _marked(self, value: Any, mark: str) -> Any:
        if isinstance(value, str):
            return self._marked_text(value, mark)
        if isinstance(value, Mapping):
            return {
                self._marked(key, mark): item if key == "role" else self._marked(item, mark)
                for key, item in value.items()
            }
        if isinstance(value, Sequence):
            return [self._marked(item, mark) for item in value]
        return value

    def _marked_text(self, text: str, mark: str) -> str:
        parts, at = [], 0
        text = text.replace(mark, _REPLACEMENT)
        for start in self._starts(text):
            parts.append(text[at : start + 1])
            at = start + 1
        return mark.join((*parts, text[at:]))


class MarkedValues:
    """Marked data; `mark` is empty where nothing had to be marked."""

    def __init__(self, values: tuple[Any, ...], mark: str) -> None:
        self.values = values
        self._mark = mark

    def parts(self, text: str) -> list[str]:
        """Return the parts of a rendered text, cut at its marks."""
        if not self._mark:
            return [text]
        escaped = f"\\u{ord(self._mark):04x}"  # what `tojson(ensure_ascii=true)` makes of it
        return text.replace(escaped, self._mark).split(self._mark)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)


def _unused_mark(strings: Sequence[str]) -> str:
    """Return a mark that stands in none of the strings, neither as it is nor escaped."""
    text = "\n".join(strings)
    for mark in _NONCHARACTERS:
        if mark not in text and f"\\u{ord(mark):04x}" not in text:
            return mark
    return _NONCHARACTERS[0]
