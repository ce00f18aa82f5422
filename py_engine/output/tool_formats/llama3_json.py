"""Calls of Llama 3: the reply is `{"name": ..., "parameters": {...}}`, or follows a python tag."""

from __future__ import annotations

from collections.abc import Set

from py_engine.grammar import GrammarSpec
from py_engine.output.call import read_call
from py_engine.output.events import EmitTool, Text
from py_engine.output.json_call import json_call
from py_engine.output.source import TextSource, Wait
from py_engine.output.tool_formats.base import Tools, new_call_id
from py_engine.output.tool_grammar import call_tags, calls, grammar_of, has_strict, or_text

PYTHON_TAG = "<|python_tag|>"


class Llama3JsonFormat:
    """JSON objects at the reply's beginning or after `<|python_tag|>`, several with ";" between.

    A grammar allows one call: the models' templates refuse a history with several at once, and no
    python tag, which is a special token and so cannot be asked for.
    """

    name = "llama3_json"
    special_tokens = (PYTHON_TAG,)
    forced_prefix = ""

    def rules(self, source: TextSource, emit: EmitTool, names: Set[str]) -> Wait[None]:
        """Read a reply (see ToolCallFormat)."""
        source.record()
        yield from self._calls(source, emit, names)
        while (yield from source.text_until((PYTHON_TAG,), lambda text: emit(Text(text)))):
            source.record()
            source.take(len(PYTHON_TAG))
            yield from self._calls(source, emit, names)

    def _calls(self, source: TextSource, emit: EmitTool, names: Set[str]) -> Wait[None]:
        """Read calls until something else comes; what was recorded belongs to the first."""
        yield from source.skip_space()
        while (yield from source.peek()) == "{":
            if not (yield from read_call(source, emit, names, json_call)):
                return
            source.record()
            yield from source.skip_space()
            yield from source.take_if(";")
            yield from source.skip_space()
        if source.recorded():
            emit(Text(source.recorded()))

    def grammar(self, tools: Tools, *, required: bool, parallel: bool) -> GrammarSpec | None:
        """Return the grammar of a reply (see ToolCallFormat)."""
        tags = call_tags(tools, '{"name": %s, "parameters": ', "}")
        one = calls(tags, separator="; ", parallel=False)
        if required:
            return grammar_of(one, tools)
        return grammar_of(or_text(one, opening="{"), tools) if has_strict(tools) else None

    def new_call_id(self) -> str:
        """Return an id for a call."""
        return new_call_id()
