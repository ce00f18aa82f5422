"""Calls in Python's notation: the reply is `[get_time(), get_weather(city="Köln", days=3)]`."""

from __future__ import annotations

import json
import re
from collections.abc import Set

from py_engine.grammar import GrammarSpec
from py_engine.output.call import Call, MalformedCall, Span, read_call, read_span
from py_engine.output.events import EmitTool, Text
from py_engine.output.python_literal import parsed_keywords
from py_engine.output.source import TextSource, Wait
from py_engine.output.tool_formats.base import Tools, new_call_id
from py_engine.output.tool_grammar import (
    call_list,
    grammar_of,
    has_strict,
    or_text,
    pythonic_tags,
)

BEGIN, END = "<|tool_call_start|>", "<|tool_call_end|>"

_NAME = re.compile(r"[\w.-]+")


class PythonicFormat:
    """A list of calls with keyword arguments that are literals; tags around it are optional.

    A call's arguments are told at once, at its end, because they are translated to JSON.
    """

    name = "pythonic"
    special_tokens = (BEGIN, END)
    forced_prefix = ""

    def rules(self, source: TextSource, emit: EmitTool, names: Set[str]) -> Wait[None]:
        """Read a reply (see ToolCallFormat)."""
        source.record()
        yield from self._calls(source, emit, names)
        while (yield from source.text_until((BEGIN,), lambda text: emit(Text(text)))):
            source.record()
            source.take(len(BEGIN))
            yield from self._calls(source, emit, names)

    def _calls(self, source: TextSource, emit: EmitTool, names: Set[str]) -> Wait[None]:
        """Read a list of calls; what was recorded belongs to the first."""
        yield from source.skip_space()
        if not (yield from source.take_if("[")):
            if source.recorded():
                emit(Text(source.recorded()))
            return
        while True:
            yield from source.skip_space()
            if not (yield from read_call(source, emit, names, _call)):
                return
            source.record()
            yield from source.skip_space()
            if not (yield from source.take_if(",")):
                break
        if (yield from source.take_if("]")):
            yield from source.skip_space()
            yield from source.take_if(END)
        elif source.recorded():
            emit(Text(source.recorded()))

    def grammar(self, tools: Tools, *, required: bool, parallel: bool) -> GrammarSpec | None:
        """Return the grammar of a reply (see ToolCallFormat); values are in JSON's notation."""
        listed = call_list(pythonic_tags(tools), parallel=parallel)
        if required:
            return grammar_of(listed, tools)
        return grammar_of(or_text(listed, opening="["), tools) if has_strict(tools) else None

    def new_call_id(self) -> str:
        """Return an id for a call."""
        return new_call_id()


def _call(call: Call) -> Wait[None]:
    source = call.source
    name = yield from source.take_while(_NAME)
    if not call.knows(name) or (yield from source.peek()) != "(":
        raise MalformedCall
    text = yield from read_span(source, Span("\"'", "(){}[]"))
    arguments = json.dumps(parsed_keywords(text[1:-1]), ensure_ascii=False)
    call.announce(name)
    call.arguments(arguments)
    call.is_complete = True
