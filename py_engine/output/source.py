"""Reading a text that is still being written.

The rules of a format are generators: they read from a TextSource as if all the text were there, and
yield wherever it is not yet. So the outcome cannot depend on how the text was cut into pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

T = TypeVar("T")

Wait = Generator[None, None, T]


class TextSource:
    """The text that is not read yet, and on request a record of what was read."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._record: list[str] = []
        self.has_ended = False

    def feed(self, text: str) -> None:
        """Add text at the end."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def record(self) -> None:
        """Record what is read from here on."""
        self._record.clear()

    def recorded(self) -> str:
        """Return what was read since `record`."""
        return "".join(self._record)

    def scan(self, find_end: Callable[[str, int], int]) -> str:
        """Read up to where `find_end(text, start)` says, and return that."""
        return self._take(find_end(self._text, self._at))

    def take(self, count: int) -> str:
        """Read and return `count` characters that are known to be there."""
        return self._take(self._at + count)

    def some(self) -> Wait[bool]:
        """Wait for text; False when there is no more."""
        while self._at == len(self._text):
            if self.has_ended:
                return False
            yield
        return True

    def peek(self) -> Wait[str]:
        """Return the next character without reading it; nothing at the end."""
        return self._text[self._at] if (yield from self.some()) else ""

    def take_if(self, literal: str) -> Wait[bool]:
        """Read `literal` if it stands here."""
        while not self._text.startswith(literal, self._at):
            rest = self._text[self._at : self._at + len(literal)]
            if self.has_ended or not literal.startswith(rest):
                return False
            yield
        self.take(len(literal))
        return True

    def take_while(self, pattern: re.Pattern[str]) -> Wait[str]:
        """Read and return what `pattern` (of single characters, repeated) matches."""
        parts: list[str] = []
        while (yield from self.some()):
            match = pattern.match(self._text, self._at)
            if match is None:
                break
            parts.append(self._take(match.end()))
        return "".join(parts)

    def skip_space(self) -> Wait[None]:
        """Read white space."""
        yield from self.take_while(_SPACE)

    def text_until(self, marks: Sequence[str], emit: Callable[[str], None]) -> Wait[str]:
        """Hand over the text before the first of `marks`; return that mark, unread.

        Text that may be the beginning of a mark is held back. At the end of all text, return
        nothing.
        """
        complete, partial = _mark_patterns(tuple(marks))
        while True:
            match = complete.search(self._text, self._at)
            held = match or (None if self.has_ended else partial.search(self._text, self._at))
            text = self._take(len(self._text) if held is None else held.start())
            if text:
                emit(text)
            if match is not None:
                return match[0]
            if self.has_ended:
                return ""
            yield

    def rest(self, emit: Callable[[str], None]) -> Wait[None]:
        """Hand over all text that comes."""
        while (yield from self.some()):
            emit(self._take(len(self._text)))

    def _take(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        self._record.append(text)
        return text


class StreamParser(Generic[T]):
    """Runs rules over a text that comes in pieces; `rules(source, emit)` is a generator."""

    def __init__(self, rules: Callable[[TextSource, Callable[[T], None]], Wait[None]]) -> None:
        self._source = TextSource()
        self._found: list[T] = []
        self._steps = rules(self._source, self._found.append)

    def put(self, text: str) -> list[T]:
        """Add a piece and return what it told."""
        self._source.feed(text)
        return self._run()

    def finish(self) -> list[T]:
        """Say that the text is complete, and return what was held back."""
        self._source.has_ended = True
        return self._run()

    def _run(self) -> list[T]:
        next(self._steps, None)
        found = self._found[:]
        self._found.clear()
        return found


_SPACE = re.compile(r"\s+")


@lru_cache(maxsize=32)
def _mark_patterns(marks: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what matches a mark, and what matches a beginning of one at the end of a text."""
    beginnings = {mark[:size] for mark in marks for size in range(1, len(mark))}
    longest_first = sorted(beginnings, key=len, reverse=True)
    return (
        re.compile("|".join(map(re.escape, marks)) or "(?!)"),
        re.compile(f"(?:{'|'.join(map(re.escape, longest_first))})\\Z"),
    )
