"""What the CPU has to say between the logits and the draw: a grammar's mask, a logit processor."""

from __future__ import annotations

import time
from typing import Any

from py_engine.generation.logit_processor import LogitProcessor, guarded, processed
from py_engine.generation.statistics import Latencies
from py_engine.grammar import GrammarMatcher
from py_engine.models.base import TextModel


class DrawControl:
    """Prepares each draw of one reply and learns what was drawn.

    A grammar that waits for a text allows everything until `see` was given that text. The grammar
    also binds what a logit processor makes of the logits.
    """

    def __init__(
        self,
        matcher: GrammarMatcher | None,
        processor: LogitProcessor | None,
        latencies: Latencies,
        *,
        wait_for: str = "",
    ) -> None:
        self._matcher = matcher
        self._processor = processor
        self._latencies = latencies
        self._wait_for = wait_for
        self._seen = ""

    @property
    def is_finished(self) -> bool:
        """Whether the grammar allows nothing more."""
        return self._matcher is not None and self._matcher.is_terminated

    async def prepare(self, model: TextModel) -> Any:
        """Change the model's logits where a processor wants it; return the mask, or None.

        Raises LogitProcessorError.
        """
        began = time.perf_counter()
        mask = None
        if self._matcher is not None and not self._wait_for:
            mask = await self._matcher.mask()
        masked = time.perf_counter()
        self._latencies.grammar_bitmask_s.append(masked - began)
        if self._processor is not None:
            model.write_logits(processed(self._processor, await model.read_logits()))
        self._latencies.logit_processor_s.append(time.perf_counter() - masked)
        return mask

    def drew(self, token_id: int, draw_s: float) -> None:
        """`accept` a token, which it took `draw_s` seconds to draw."""
        self._latencies.sample_s.append(draw_s)
        self.accept(token_id)

    def accept(self, token_id: int) -> None:
        """Learn the next token. Raises LogitProcessorError, GrammarMatcherError."""
        if self._processor is not None:
            guarded(self._processor.process_sampled_token, token_id)
        if self._matcher is not None and not self._wait_for:
            self._matcher.accept(token_id)

    def see(self, text: str) -> None:
        """Learn the text that the drawn tokens stand for."""
        if not self._wait_for:
            return
        self._seen += text
        if self._wait_for in self._seen:
            self._wait_for = ""
        self._seen = self._seen[-len(self._wait_for) :]

    def close(self) -> None:
        """Free the matcher."""
        if self._matcher is not None:
            self._matcher.close()
