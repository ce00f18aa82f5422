"""Replies through MessageParser, put together again as a client does."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from py_engine.output import TOOL_CALL_FORMATS, MessageParser

NAMES = frozenset({"get_weather", "now", "send-mail"})


@dataclass
class Reply:
    """A reply put together from deltas; `calls` are names with arguments as text."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)

    def add(self, delta: dict[str, Any]) -> None:
        self.content += delta.get("content", "")
        self.reasoning += delta.get("reasoning_content", "")
        for call in delta.get("tool_calls", ()):
            arguments = call["function"]["arguments"]
            if "id" in call:
                assert call["index"] == len(self.calls)
                self.calls.append((call["function"]["name"], arguments))
            else:
                assert call["index"] == len(self.calls) - 1
                name, so_far = self.calls[-1]
                self.calls[-1] = (name, so_far + arguments)


def make_parser(form: str | None, **options: Any) -> MessageParser:
    """Return a parser of the format of that name, by default without reasoning."""
    arguments: dict[str, Any] = {
        "reasoning": False,
        "starts_in_reasoning": False,
        "tools": None if form is None else TOOL_CALL_FORMATS[form],
        "tool_names": NAMES,
    }
    return MessageParser(**(arguments | options))


def deltas(parser: MessageParser, pieces: Iterable[str]) -> list[dict[str, Any]]:
    """Return all deltas of a reply that comes in pieces."""
    found = [delta for piece in pieces for delta in parser.put(piece)]
    return found + parser.finish()


def parse(form: str | None, text: str | Iterable[str], **options: Any) -> Reply:
    """Return the reply that a text means, put in at once or in the given pieces."""
    pieces = [text] if isinstance(text, str) else text
    reply = Reply()
    for delta in deltas(make_parser(form, **options), pieces):
        reply.add(delta)
    return reply


def cuts(text: str, rng: random.Random, count: int) -> Iterator[list[str]]:
    """Yield `text` in single characters, and cut at random `count` times."""
    yield list(text)
    for _ in range(count):
        places = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(1, 12)))
        yield [text[i:j] for i, j in zip([0, *places], [*places, len(text)], strict=True)]
