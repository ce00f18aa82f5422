"""Calls of Mistral: `[TOOL_CALLS]` with a list of objects, or with `name[ARGS]{...}`."""

from __future__ import annotations

import os
import re
from collections.abc import Set

from py_engine.grammar import GrammarSpec
from py_engine.output.call import Call, MalformedCall, read_call
from py_engine.output.events import EmitTool, Text
from py_engine.output.json_call import json_arguments, json_call
from py_engine.output.source import TextSource, Wait
from py_engine.output.tool_formats.base import Tools
from py_engine.output.tool_grammar import call_list, call_tags, calls, grammar_of

TOOL_CALLS, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"

_NAME = re.compile(r"[\w.-]+")


class MistralFormat:
    """A list after `[TOOL_CALLS]` (2024), or `[TOOL_CALLS]name[ARGS]{...}` for each call (2025).

    The marks are special tokens, which no grammar can ask for, so a reply that must call begins
    with `forced_prefix`. Where a call may come but need not, no grammar is possible: it would
    forbid the token with which a call begins, so `strict` has no effect there.
    """

    special_tokens = (TOOL_CALLS, CALL_ID, ARGS)
    forced_prefix = TOOL_CALLS

    def __init__(self, *, writes_names: bool) -> None:
        """`writes_names` tells the newer form, which matters to `grammar` alone."""
        self.name = "mistral_args" if writes_names else "mistral"
        self._writes_names = writes_names

    def rules(self, source: TextSource, emit: EmitTool, names: Set[str]) -> Wait[None]:
        """Read a reply of either form (see ToolCallFormat)."""
        while (yield from source.text_until((TOOL_CALLS,), lambda text: emit(Text(text)))):
            source.record()
            source.take(len(TOOL_CALLS))
            yield from source.skip_space()
            start = yield from source.peek()
            if start == "[":
                source.take(1)
                yield from self._list(source, emit, names)
            else:
                body = json_call if start == "{" else _named_call
                yield from read_call(source, emit, names, body)

    def _list(self, source: TextSource, emit: EmitTool, names: Set[str]) -> Wait[None]:
        while True:
            yield from source.skip_space()
            if not (yield from read_call(source, emit, names, json_call)):
                return
            source.record()
            yield from source.skip_space()
            if (yield from source.take_if("]")):
                return
            if not (yield from source.take_if(",")):
                if source.recorded():
                    emit(Text(source.recorded()))
                return

    def grammar(self, tools: Tools, *, required: bool, parallel: bool) -> GrammarSpec | None:
        """Return the grammar of a reply after `forced_prefix` (see ToolCallFormat).

        In the newer form `[ARGS]` is spelled out, and there is one call.
        """
        if not required:
            return None
        if self._writes_names:
            tags = call_tags(tools, f"%s{ARGS}", "", as_json=False)
            return grammar_of(calls(tags, separator="", parallel=False), tools)
        tags = call_tags(tools, '{"name": %s, "arguments": ', "}")
        return grammar_of(call_list(tags, parallel=parallel), tools)

    def new_call_id(self) -> str:
        """Return an id as Mistral's templates demand: nine letters and digits."""
        return os.urandom(5).hex()[:9]


def _named_call(call: Call) -> Wait[None]:
    source = call.source
    name = yield from source.take_while(_NAME)
    yield from source.skip_space()
    if (yield from source.take_if(CALL_ID)):
        yield from source.take_while(_NAME)
    yield from source.take_if(ARGS)
    yield from source.skip_space()
    if (yield from source.peek()) != "{":
        raise MalformedCall
    call.announce(name)
    yield from json_arguments(call)
