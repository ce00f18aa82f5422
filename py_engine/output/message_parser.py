"""A reply's text to OpenAI's message deltas: reasoning, answer and tool calls apart."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from py_engine.output.events import CallArguments, CallEnd, CallStart, Event, Reasoning, Text
from py_engine.output.reasoning import ReasoningSplitter
from py_engine.output.source import StreamParser
from py_engine.output.space import TrailingSpace
from py_engine.output.tool_formats.base import ToolCallFormat

Delta = dict[str, Any]


class MessageParser:
    """One reply: pieces of text in, deltas out. The deltas together do not depend on the cut.

    `reasoning` takes a think block at the beginning for `reasoning_content`, and
    `starts_in_reasoning` says that the prompt has opened it. Calls are read with `tools` (None:
    there are none), and only of functions in `tool_names`. With `parallel_tool_calls` false the
    reply ends with its first call: what follows is left out.

    A malformed call becomes content, unchanged. One that shows it only after its name is known is
    content too, unless `stream` is true: then a part of it is out already, so it stays a call, and
    its arguments are what the model wrote, which is no valid JSON, as OpenAI warns that it may be.
    White space between calls and around them is no content.
    """

    def __init__(
        self,
        *,
        reasoning: bool,
        starts_in_reasoning: bool,
        tools: ToolCallFormat | None,
        tool_names: Set[str],
        parallel_tool_calls: bool = True,
        stream: bool = True,
    ) -> None:
        self._reasoning = (
            ReasoningSplitter(starts_inside=starts_in_reasoning)
            if reasoning or starts_in_reasoning
            else None
        )
        self._format = tools
        self._tools = None if tools is None else _tool_parser(tools, tool_names)
        self._is_parallel = parallel_tool_calls
        self._holds_calls = not stream
        self._held: list[Event] = []
        self._space = TrailingSpace()
        self._has_content = False
        self._n_calls = 0
        self.is_complete = False

    @property
    def has_tool_calls(self) -> bool:
        """Whether a call has begun."""
        return self._n_calls > 0

    @property
    def is_reasoning(self) -> bool:
        """Whether the think block is open now."""
        return self._reasoning is not None and self._reasoning.is_inside

    def put(self, text: str) -> list[Delta]:
        """Add a piece of the reply and return the deltas that it made certain."""
        if self._reasoning is None:
            return self._deltas(self._tool_events(text))
        return self._deltas(self._split(self._reasoning.put(text)))

    def finish(self) -> list[Delta]:
        """Return what was held back; the reply is complete."""
        events = [] if self._reasoning is None else self._split(self._reasoning.finish())
        if self._tools is not None:
            events += self._tools.finish()
        deltas = self._deltas(events)
        rest = "" if self.has_tool_calls else self._space.held
        return [*deltas, {"content": rest}] if rest else deltas

    def _split(self, parts: Sequence[Reasoning | Text]) -> list[Event]:
        events: list[Event] = []
        for part in parts:
            events += self._tool_events(part.text) if isinstance(part, Text) else [part]
        return events

    def _tool_events(self, text: str) -> Sequence[Event]:
        return [Text(text)] if self._tools is None else self._tools.put(text)

    def _deltas(self, events: Sequence[Event]) -> list[Delta]:
        deltas: list[Delta] = []
        for event in events:
            for shown in self._shown(event):
                if not self.is_complete:
                    self._add(deltas, shown)
        return deltas

    def _shown(self, event: Event) -> Sequence[Event]:
        """Return the events that are certain now: calls only with their end, where they are held.

        No text comes between the start and the end of a call.
        """
        if not self._holds_calls or isinstance(event, Text | Reasoning):
            return [event]
        self._held.append(event)
        if not isinstance(event, CallEnd):
            return []
        held, self._held = self._held, []
        return held if event.is_valid else [Text(event.text)]

    def _add(self, deltas: list[Delta], event: Event) -> None:
        match event:
            case Reasoning():
                _add_text(deltas, "reasoning_content", event.text)
            case Text():
                _add_text(deltas, "content", self._content(event.text))
            case CallStart():
                self._n_calls += 1
                deltas.append({"tool_calls": [self._new_call(event.name)]})
            case CallArguments():
                self._add_arguments(deltas, event.text)
            case CallEnd():
                self.is_complete = not self._is_parallel

    def _content(self, text: str) -> str:
        if self._tools is None:
            return text
        if not self._has_content and self.has_tool_calls:
            text = (self._space.held + text).lstrip()
            self._space.held = ""
        content = self._space.put(text)
        self._has_content = self._has_content or bool(content)
        return content

    def _new_call(self, name: str) -> Delta:
        assert self._format is not None
        return {
            "index": self._n_calls - 1,
            "id": self._format.new_call_id(),
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }

    def _add_arguments(self, deltas: list[Delta], text: str) -> None:
        call = {"index": self._n_calls - 1, "function": {"arguments": text}}
        last = deltas[-1].get("tool_calls") if deltas else None
        if last and "id" not in last[0]:
            last[0]["function"]["arguments"] += text
        else:
            deltas.append({"tool_calls": [call]})


def _tool_parser(tools: ToolCallFormat, names: Set[str]) -> StreamParser[Any]:
    return StreamParser(lambda source, emit: tools.rules(source, emit, names))


def _add_text(deltas: list[Delta], field: str, text: str) -> None:
    if not text:
        return
    if deltas and field in deltas[-1]:
        deltas[-1][field] += text
    else:
        deltas.append({field: text})
