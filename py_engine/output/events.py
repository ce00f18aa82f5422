"""What the parsers of a reply tell, in the order of the reply's text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reasoning:
    """Text inside the think block."""

    text: str


@dataclass(frozen=True)
class Text:
    """Text of the answer."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call of a known function begins; its arguments follow."""

    name: str


@dataclass(frozen=True)
class CallArguments:
    """A part of the call's arguments, as JSON text."""

    text: str


@dataclass(frozen=True)
class CallEnd:
    """The call has ended. `text` is the whole call as the model wrote it, its marks included;
    `is_valid` says whether its arguments are a JSON object.
    """

    text: str
    is_valid: bool


ToolEvent = Text | CallStart | CallArguments | CallEnd
Event = Reasoning | ToolEvent
EmitTool = Callable[[ToolEvent], None]
