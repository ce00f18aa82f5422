"""What a format of tool calls is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, Protocol

from py_engine.grammar import GrammarSpec
from py_engine.output.events import EmitTool
from py_engine.output.source import TextSource, Wait

Tools = Sequence[Mapping[str, Any]]


class ToolCallFormat(Protocol):
    """How a family of models writes tool calls.

    `special_tokens` are tokens that the detokenizer must keep in the text, should the tokenizer
    call them special. `forced_prefix` is what a reply that must call a function begins with, for
    formats whose first token no grammar can ask for (xgrammar knows no special tokens): it is
    appended to the prompt and given to the parser before the reply, and the grammar starts after
    it. Elsewhere it is empty.
    """

    @property
    def name(self) -> str: ...

    @property
    def special_tokens(self) -> tuple[str, ...]: ...

    @property
    def forced_prefix(self) -> str: ...

    def rules(self, source: TextSource, emit: EmitTool, names: Set[str]) -> Wait[None]:
        """Read a reply: text, and calls of the functions in `names`.

        What looks like a call and is none becomes text unchanged.
        """
        ...

    def grammar(self, tools: Tools, *, required: bool, parallel: bool) -> GrammarSpec | None:
        """Return what the reply must look like, or None where it is free.

        `tools` are OpenAI's. With `required` the reply is calls of them alone, and exactly one
        unless `parallel`. Without it text is free too, and the grammar is there for tools that are
        `strict`: a call that begins is then a valid one.
        """
        ...

    def new_call_id(self) -> str:
        """Return an id for a call."""
        ...


def new_call_id() -> str:
    """Return an id as OpenAI's look."""
    # Python's own generator starts alike in every worker that boots from a snapshot.
    return f"call_{os.urandom(12).hex()}"
