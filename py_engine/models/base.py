"""What generation needs to know of a loaded model."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from py_engine.chat_config import ActivationDtype

if TYPE_CHECKING:
    from py_engine.models.images import VisionModel

MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is drawn, in this order (WebLLM's, with `top_k` and `min_p` added).

    Mask; `logit_bias` by token id; for tokens drawn before in this reply minus `presence_penalty`
    and minus `frequency_penalty` for each time, then divided (above 0) or multiplied (below 0) by
    `repetition_penalty`; softmax at `temperature`, where 0 always takes the likeliest token; the
    `top_k` likeliest (0: all); of these the fewest whose mass reaches `top_p`; of these the ones
    with at least `min_p` of the likeliest token's probability. Tokens that tie at a border stay.

    `top_logprobs` (0 to 20) asks for log-probabilities of the drawn and of that many likeliest
    tokens; None for none. They are of the distribution before `top_k`, at temperature 1 where
    `temperature` is 0.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None


@dataclass(frozen=True)
class Draw:
    """One drawn token; `top` are the likeliest tokens, the likeliest first.

    Log-probabilities are at least -9999, OpenAI's value for a very unlikely token.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


LoadPhase = Literal["download", "weights", "kernels", "quality", "choice"]


@dataclass(frozen=True)
class LoadProgress:
    """Progress of loading a model.

    Counted are bytes of files for "download" (into the browser's storage, with what is there
    already), bytes on the GPU for "weights", pipelines for "kernels", tokens of a text for
    "quality", forms of kernels that are measured for "choice". Kernels may compile longer than the
    load lasts, and then no more of them are reported.
    """

    phase: LoadPhase
    done: int
    total: int


class LoadingTokenizer(Protocol):
    """What loading a model needs of its tokenizer, which loads meanwhile. Raises its errors."""

    async def vocab_size(self) -> int:
        """Return how many tokens it has."""
        ...

    async def token_ids(self, text: str) -> Sequence[int]:
        """Return the ids of a text, with the special tokens that belong before it."""
        ...


class TextModel(Protocol):
    """One loaded model with one sequence. Its `vocab_size` counts the tokens that can be drawn.

    `sample` and `decode` compute logits and draw in one submit. Where the CPU has a say between
    the two (a grammar's mask, a logit processor), the halves are `first_logits`, `next_logits`
    and `draw`.
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def context_window_size(self) -> int: ...
    @property
    def prefill_chunk_size(self) -> int: ...
    @property
    def activation_dtype(self) -> ActivationDtype:
        """What products round their input to at the most."""
        ...

    @property
    def has_all_kernels(self) -> bool:
        """Whether `reserve` waits for no kernels that are still compiling."""
        ...

    @property
    def steps_in_flight(self) -> int:
        """How many calls of `decode` to make before the first of their tokens is awaited."""
        ...

    free_memory: Callable[[], bool]
    """Frees what others can do without and tells whether there was any; called where a sequence
    cannot grow, which then tries again."""

    @property
    def vision(self) -> VisionModel | None:
        """The model's image input; None where it takes text only."""
        ...

    def reusable_tokens(self, n_tokens: int) -> int:
        """Return how many of the sequence's first `n_tokens` tokens a `start` can keep."""
        ...

    def start(
        self,
        sampling: SamplingParams,
        kept_tokens: int = 0,
        prompt_tokens: int = 0,
        drawn: Sequence[int] = (),
        *,
        is_reproducible: bool = False,
    ) -> None:
        """Forget the sequence but for its first `kept_tokens`, and set how tokens are drawn.

        `prompt_tokens` says how many the sequence will have after prefill, as far as is known.
        The draws go on after those of `drawn`, which count for the penalties and the random
        numbers; they come into the sequence by `prefill`, or by `replay` after it. The draws of one
        that `is_reproducible` do not depend on what else the model does.
        """
        ...

    async def fork(self) -> Self | None:
        """Return another sequence of the same model; None where it can have no more.

        They share weights and working memory. So from a sequence's `prefill` to its first draw, or
        to `first_logits`, no other one may `start` or `prefill`. Destroy forks before their model.
        Raises OutOfMemoryError, DeviceLostError.
        """
        ...

    async def adopt(self, other: Self, n_tokens: int) -> int:
        """Let the sequence be the first `n_tokens` of another one, which that could keep itself.

        Returns how many it has of them: none where they cannot be copied, and then it is unchanged.
        """
        ...

    async def prefill(self, token_ids: Sequence[int]) -> None:
        """Append one chunk of at most `prefill_chunk_size` tokens to the sequence.

        Waits for the kernels of chunks and draws, so that `sample`, `first_logits` and `draw` can
        follow. Raises ShaderCompilationError, and what lack of room and lost devices raise.
        """
        ...

    async def replay(self, token_ids: Sequence[int]) -> None:
        """Append tokens as `decode` did when it drew them: to the last bit, which prefill is not.

        Leaves the logits after the last one, for `draw`.
        """
        ...

    async def reserve(self, n_tokens: int) -> None:
        """Make ready for `n_tokens` more, before they are enqueued by `decode` or `next_logits`.

        Waits for all kernels, and makes room. Raises as `prefill` does.
        """
        ...

    def sample(self) -> Awaitable[Draw]:
        """Draw the first token after the last prefill chunk."""
        ...

    def decode(self) -> Awaitable[Draw]:
        """Enqueue one step, which appends the last drawn token and draws the next one.

        Several steps may be in flight; their tokens arrive in order.
        """
        ...

    async def prepare_drafts(self, n_tokens: int) -> int:
        """Get ready to `verify` drafts of up to `n_tokens`; return how many they can have.

        0 where the model cannot verify any, or draws as asked for by `start` depend on each other.
        """
        ...

    async def verify(self, token_id: int, draft: Sequence[int]) -> list[int]:
        """Append the token drawn last and the beginning of `draft` that the draws agree with.

        Returns these draws, and the first that differs or comes after the draft: what `decode`
        would have drawn one after another. No call of `decode` is in flight.
        """
        ...

    def first_logits(self) -> None:
        """Compute the logits after the last prefill chunk; returns at once."""
        ...

    def next_logits(self) -> None:
        """Append the last drawn token and compute the logits after it; returns at once."""
        ...

    def draw(self, mask: Any = None) -> Awaitable[Draw]:
        """Draw from the logits at hand.

        `mask` (host bytes: ceil(vocab_size / 32) words, bit i % 32 of word i // 32 set where token
        i is allowed) forbids all other tokens in this draw.
        """
        ...

    async def read_logits(self) -> array[float]:
        """Return the f32 logits at hand, (vocab_size,): unadjusted before their draw."""
        ...

    def write_logits(self, logits: Any) -> None:
        """Replace the logits at hand, f32 (vocab_size,), before their draw."""
        ...

    def destroy(self) -> None:
        """Free everything the model holds on the GPU."""
        ...
