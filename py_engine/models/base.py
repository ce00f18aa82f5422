"""What generation needs to know of a loaded model."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is drawn. A `temperature` of 0 always takes the likeliest one."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class LoadProgress:
    """Progress of loading a model: bytes for "weights", pipelines for "kernels"."""

    phase: Literal["weights", "kernels"]
    done: int
    total: int


class TextModel(Protocol):
    """One loaded model with one sequence."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def context_window_size(self) -> int: ...
    @property
    def prefill_chunk_size(self) -> int: ...

    def start(self, sampling: SamplingParams) -> None:
        """Forget the sequence and set how tokens are drawn from now on."""
        ...

    async def prefill(self, token_ids: Sequence[int]) -> None:
        """Append one chunk of at most `prefill_chunk_size` tokens to the sequence."""
        ...

    def sample(self) -> Awaitable[int]:
        """Draw the first token after the last prefill chunk."""
        ...

    def decode(self) -> Awaitable[int]:
        """Enqueue one step, which appends the last drawn token and draws the next one.

        Several steps may be in flight; their tokens arrive in order.
        """
        ...

    async def read_logits(self) -> array[float]:
        """Return the f32 logits of the last step, (vocab_size,)."""
        ...

    def destroy(self) -> None:
        """Free everything the model holds on the GPU."""
        ...
