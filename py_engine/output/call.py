"""Reading one tool call: what formats have in common, whatever they write a call in."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from typing import Any, NoReturn

from py_engine.json_values import MAX_DEPTH, is_too_deep
from py_engine.output.events import CallArguments, CallEnd, CallStart, EmitTool, Text
from py_engine.output.source import TextSource, Wait


class MalformedCall(Exception):
    """What follows is no call, or stops being one here. Never leaves this package."""


class Call:
    """A call that is being read from `source`; only functions of `names` can be called."""

    def __init__(self, source: TextSource, emit: EmitTool, names: Set[str]) -> None:
        self.source = source
        self.is_announced = False
        self.is_complete = False
        self._emit = emit
        self._names = names

    def knows(self, name: Any) -> bool:
        """Whether `name` is a function's."""
        return isinstance(name, str) and name in self._names

    def announce(self, name: Any) -> None:
        """Tell that the call begins. Raises MalformedCall for an unknown function."""
        if not self.knows(name):
            raise MalformedCall
        self.is_announced = True
        self._emit(CallStart(name))

    def arguments(self, text: str) -> None:
        """Tell a part of the arguments."""
        if text:
            self._emit(CallArguments(text))


def read_call(
    source: TextSource,
    emit: EmitTool,
    names: Set[str],
    body: Callable[[Call], Wait[None]],
    *,
    end: str = "",
) -> Wait[bool]:
    """Read a call by the rules of `body`; True if it was one.

    A call that turns out malformed before it was announced becomes text, all that was recorded.
    One that was announced stands, as a part of it is out already: what follows up to and with the
    mark `end` (to the reply's end where there is none) is its arguments', as the model wrote them.
    """
    call = Call(source, emit, names)
    try:
        yield from body(call)
    except MalformedCall:
        if not call.is_announced:
            if source.recorded():
                emit(Text(source.recorded()))
            return False
        if not call.is_complete:
            if (yield from source.text_until((end,) if end else (), call.arguments)):
                source.take(len(end))
            emit(CallEnd(source.recorded(), is_valid=False))
            return False
    emit(CallEnd(source.recorded(), is_valid=True))
    return True


class Span:
    """Finds the end of a value that begins with a bracket or a quote, piece by piece."""

    def __init__(self, quotes: str = '"', brackets: str = "{}[]") -> None:
        self._quotes = quotes
        self._pairs = dict(zip(brackets[::2], brackets[1::2], strict=True))
        self._closing = brackets[1::2]
        self._open: list[str] = []
        self._quote = ""
        self._is_escaped = False
        self.is_complete = False
        self.is_broken = False

    def find_end(self, text: str, start: int) -> int:
        """Return where the value's part of `text` ends; a wrong bracket is not its part."""
        for index in range(start, len(text)):
            self._step(text[index])
            if self.is_broken:
                return index
            if self.is_complete:
                return index + 1
        return len(text)

    def _step(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif self._quote:
            if character == "\\":
                self._is_escaped = True
            elif character == self._quote:
                self._quote = ""
        elif character in self._quotes:
            self._quote = character
        elif character in self._pairs:
            self._open.append(self._pairs[character])
        elif character in self._closing:
            self.is_broken = not self._open or self._open.pop() != character
        self.is_broken = self.is_broken or len(self._open) > MAX_DEPTH
        self.is_complete = not (self._open or self._quote)


def read_span(
    source: TextSource, span: Span, on_text: Callable[[str], None] | None = None
) -> Wait[str]:
    """Read the value that `span` finds, hand its text on as it comes, and return it."""
    parts: list[str] = []
    while not span.is_complete:
        if not (yield from source.some()):
            raise MalformedCall
        parts.append(source.scan(span.find_end))
        if on_text is not None:
            on_text(parts[-1])
        if span.is_broken:
            raise MalformedCall
    return "".join(parts)


def parsed_json(text: str) -> Any:
    """Return the value of strict JSON. Raises MalformedCall."""
    if is_too_deep(text):
        raise MalformedCall
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise MalformedCall from error


def _refuse(_constant: str) -> NoReturn:
    raise MalformedCall
