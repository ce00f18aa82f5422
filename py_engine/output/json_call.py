"""Calls written as a JSON object: `{"name": ..., "arguments": {...}}`, its keys in any order."""

from __future__ import annotations

import re

from py_engine.output.call import Call, MalformedCall, Span, parsed_json, read_span
from py_engine.output.source import TextSource, Wait

_ARGUMENTS_KEYS = ("arguments", "parameters")
_OTHER_KEYS = ("id", "type", "index")  # what models write there tells nothing
_SCALAR = re.compile(r"[-+.\w]+")


def json_call(call: Call) -> Wait[None]:
    """Read an object with a name and arguments; without arguments they are `{}`.

    An object with another key is no call, which is known at that key: an answer that is JSON is
    not held back until its end.
    """
    fields = _Fields(call)
    source = call.source
    yield from _expect(source, "{")
    while True:
        yield from source.skip_space()
        key = parsed_json((yield from _string(source)))
        yield from _expect(source, ":")
        yield from source.skip_space()
        if key in _ARGUMENTS_KEYS:
            yield from fields.read_arguments()
        elif key == "name":
            fields.set_name(parsed_json((yield from _string(source))))
        elif key in _OTHER_KEYS:
            parsed_json((yield from _value(source)))
        else:
            raise MalformedCall
        if (yield from _expect(source, ",}")) == "}":
            break
    fields.finish()


def json_arguments(call: Call) -> Wait[None]:
    """Read the arguments' object of a call that is announced, and tell it part by part."""
    text = yield from read_span(call.source, Span(), call.arguments)
    if not isinstance(parsed_json(text), dict):
        raise MalformedCall
    call.is_complete = True


class _Fields:
    """Brings the name before the arguments, whichever was written first."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._name: str | None = None
        self._arguments: str | None = None

    def set_name(self, name: str) -> None:
        if self._name is not None:
            raise MalformedCall
        self._name = name
        if self._arguments is not None:
            self._tell()
        elif not self._call.knows(name):
            raise MalformedCall

    def read_arguments(self) -> Wait[None]:
        call = self._call
        if self._arguments is not None or call.is_announced:
            raise MalformedCall
        if self._name is not None and (yield from call.source.peek()) == "{":
            call.announce(self._name)
            yield from json_arguments(call)
            return
        self._arguments = _arguments_text((yield from _value(call.source)))
        if self._name is not None:
            self._tell()

    def finish(self) -> None:
        if self._call.is_complete:
            return
        if self._name is None:
            raise MalformedCall
        self._arguments = "{}"
        self._tell()

    def _tell(self) -> None:
        self._call.announce(self._name)
        self._call.arguments(self._arguments or "")
        self._call.is_complete = True


def _arguments_text(text: str) -> str:
    """Return arguments as the text of an object: some models write it as a string, or null."""
    value = parsed_json(text)
    if isinstance(value, str):
        text = value
        value = parsed_json(text)
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise MalformedCall
    return text


def _expect(source: TextSource, characters: str) -> Wait[str]:
    """Read one of `characters` after white space, and return it."""
    yield from source.skip_space()
    found = yield from source.peek()
    if not found or found not in characters:
        raise MalformedCall
    return source.take(1)


def _string(source: TextSource) -> Wait[str]:
    if (yield from source.peek()) != '"':
        raise MalformedCall
    return (yield from read_span(source, Span()))


def _value(source: TextSource) -> Wait[str]:
    if (yield from source.peek()) in ("{", "[", '"'):
        return (yield from read_span(source, Span()))
    return (yield from source.take_while(_SCALAR))
