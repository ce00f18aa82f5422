"""Calls of Hermes, Qwen and others: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

from collections.abc import Set

from py_engine.grammar import GrammarSpec
from py_engine.output.call import read_call
from py_engine.output.events import EmitTool, Text
from py_engine.output.json_call import json_call
from py_engine.output.source import TextSource, Wait
from py_engine.output.tool_formats.base import Tools, new_call_id
from py_engine.output.tool_grammar import call_tags, calls, grammar_of, has_strict, text_with

BEGIN, END = "<tool_call>", "</tool_call>"


class HermesFormat:
    """JSON objects between tags, anywhere in the reply.

    The closing tag may be missing, as after the last token of a reply that a model cut short.
    """

    name = "hermes"
    special_tokens = (BEGIN, END)
    forced_prefix = ""

    def rules(self, source: TextSource, emit: EmitTool, names: Set[str]) -> Wait[None]:
        """Read a reply (see ToolCallFormat)."""
        while (yield from source.text_until((BEGIN,), lambda text: emit(Text(text)))):
            source.record()
            source.take(len(BEGIN))
            yield from source.skip_space()
            if (yield from read_call(source, emit, names, json_call, end=END)):
                yield from source.skip_space()
                yield from source.take_if(END)

    def grammar(self, tools: Tools, *, required: bool, parallel: bool) -> GrammarSpec | None:
        """Return the grammar of a reply (see ToolCallFormat)."""
        tags = call_tags(tools, f'{BEGIN}\n{{"name": %s, "arguments": ', f"}}\n{END}")
        if required:
            return grammar_of(calls(tags, separator="\n", parallel=parallel), tools)
        if not has_strict(tools):
            return None
        return grammar_of(text_with(tags, BEGIN, parallel=parallel), tools)

    def new_call_id(self) -> str:
        """Return an id for a call."""
        return new_call_id()
