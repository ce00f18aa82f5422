"""What a reply is to be like, and what it consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from py_engine.models.base import Draw, SamplingParams

if TYPE_CHECKING:
    from py_engine.generation.logit_processor import LogitProcessor
    from py_engine.grammar import Grammar

FinishReason = Literal["stop", "length", "abort"]


class TokenRecorder(Protocol):
    """Keeps what a reply consists of, so that it can be replayed."""

    async def put(self, draw: Draw, text: str) -> None:
        """Take a drawn token with the text that it made certain, before that text is given out."""
        ...


@dataclass(frozen=True)
class GenerationParams:
    """What to generate. `max_tokens` None means up to the end of the context window.

    `grammar` allows each token, from the beginning or, with `grammar_after`, once that text was
    generated. `kept_special_ids` are special tokens that show in the text. `is_reproducible` makes
    the reply the same to the last bit whatever the KV cache holds from before.

    With `draft_tokens` so many tokens at a time are guessed from the prompt, the reply and a
    `prediction` of it, and verified in one step. The reply stays the same.

    `replayed` are the draws that a reply began with in another life: it gives their pieces without
    drawing again and goes on after them. `recorder` is told of every draw after those.
    """

    sampling: SamplingParams
    max_tokens: int | None = None
    stop_token_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    kept_special_ids: frozenset[int] = frozenset()
    grammar: Grammar | None = None
    grammar_after: str = ""
    logit_processor: LogitProcessor | None = None
    is_reproducible: bool = False
    draft_tokens: int = 0
    prediction: Sequence[int] = ()
    replayed: Sequence[Draw] = ()
    recorder: TokenRecorder | None = None

    @property
    def is_controlled(self) -> bool:
        """Whether the CPU has a say between the logits and the draw."""
        return self.grammar is not None or self.logit_processor is not None


@dataclass(frozen=True)
class Piece:
    """Text that became certain, and the log-probabilities of its tokens if they are asked for.

    Each is a dict as OpenAI has it: token, bytes, logprob, top_logprobs.
    """

    text: str
    logprobs: Sequence[dict[str, Any]] = ()
