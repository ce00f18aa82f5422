"""The think block of a reply, `<think>...</think>`, apart from the answer after it."""

from __future__ import annotations

from collections.abc import Callable

from py_engine.output.events import Reasoning, Text
from py_engine.output.source import StreamParser, TextSource, Wait
from py_engine.output.space import TrailingSpace

THINK_BEGIN, THINK_END = "<think>", "</think>"

Emit = Callable[[Reasoning | Text], None]


class ReasoningSplitter:
    """Tells reasoning from answer. White space around both marks belongs to neither.

    A block is one only at the reply's very beginning, or when the prompt has opened it
    (`starts_inside`). `is_inside` is true as long as the block is open.
    """

    def __init__(self, *, starts_inside: bool) -> None:
        self.is_inside = starts_inside
        self._parser: StreamParser[Reasoning | Text] = StreamParser(self._rules)

    def put(self, text: str) -> list[Reasoning | Text]:
        """Add a piece of the reply and return its parts."""
        return self._parser.put(text)

    def finish(self) -> list[Reasoning | Text]:
        """Return what was held back; a block that is still open is reasoning to its end."""
        return self._parser.finish()

    def _rules(self, source: TextSource, emit: Emit) -> Wait[None]:
        source.record()
        yield from source.skip_space()
        # Some models repeat the mark that the prompt ends with.
        has_mark = yield from source.take_if(THINK_BEGIN)
        if has_mark or self.is_inside:
            self.is_inside = True
            yield from self._block(source, emit)
        elif source.recorded():
            emit(Text(source.recorded()))
        yield from source.rest(lambda text: emit(Text(text)))

    def _block(self, source: TextSource, emit: Emit) -> Wait[None]:
        space = TrailingSpace()

        def emit_reasoning(text: str) -> None:
            if text := space.put(text):
                emit(Reasoning(text))

        yield from source.skip_space()
        if (yield from source.text_until((THINK_END,), emit_reasoning)):
            source.take(len(THINK_END))
            self.is_inside = False
            yield from source.skip_space()
