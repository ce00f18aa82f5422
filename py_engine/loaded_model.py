"""One loaded language model: its parts, who uses it, and what it said last."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing

from py_engine.config import ChatConfig
from py_engine.conversation import PromptRenderer
from py_engine.errors import AbortError, ConfigValueError, DeviceError, MLCError, RangeError
from py_engine.generation import (
    Generation,
    GenerationParams,
    LogitProcessor,
    Piece,
    Seat,
    Statistics,
)
from py_engine.grammars import ModelGrammars
from py_engine.host import EngineHost
from py_engine.json_values import shown
from py_engine.models.base import SamplingParams, TextModel
from py_engine.models.images import VisionModel
from py_engine.models.profile import KernelProfile
from py_engine.seats import Seats
from py_engine.tokenizer import Tokenizer


class LoadedModel:
    """A model that requests can use, several at once and in the order in which they came.

    `logit_processor` changes the logits of every reply where it is set, of one after another.
    """

    def __init__(
        self,
        config: ChatConfig,
        tokenizer: Tokenizer,
        renderer: PromptRenderer,
        text_model: TextModel,
        host: EngineHost,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.renderer = renderer
        self.grammars = ModelGrammars(
            host, tokenizer, text_model.vocab_size, renderer.stop_token_ids
        )
        self.statistics = Statistics()
        self.logit_processor: LogitProcessor | None = None
        self.host = host
        self._text_model = text_model
        self._seats = Seats(text_model, config.max_num_sequence)
        self._active: list[Generation] = []
        self._n_interrupts = 0
        self._message = ""
        self._has_raw_sequence = False

    @property
    def message(self) -> str:
        """The text of the reply at hand that began last, else of the one that ended last."""
        return self._active[-1].text if self._active else self._message

    @property
    def vocab_size(self) -> int:
        """The number of logits; token ids are below it."""
        return self._text_model.vocab_size

    @property
    def prefill_chunk_size(self) -> int:
        """The most tokens of a prompt that are computed together."""
        return self._text_model.prefill_chunk_size

    @property
    def vision(self) -> VisionModel | None:
        """The model's image input; None where it takes text only."""
        return self._text_model.vision

    @property
    def most_replies(self) -> int:
        """How many replies can be generated at once."""
        return 1 if self.logit_processor is not None else self._seats.most

    async def load_libraries(self) -> None:
        """Load what the logit processor needs, if there is one."""
        if self.logit_processor is not None:
            await self.host.load_numpy()

    def generation(self, prompt: Sequence[int], params: GenerationParams) -> Generation:
        """Return a new reply to `prompt`. Errors: ContextWindowSizeExceededError."""
        return Generation(self._text_model, self.tokenizer, prompt, params)

    def seat(self, prompt: Sequence[int]) -> AbstractAsyncContextManager[Seat]:
        """Wait for the requests before to leave room for a reply; best where `prompt` began before.

        Raises what `close` was given when the model was closed meanwhile.
        """
        # A logit processor keeps a state of the reply at hand.
        return self._seats.take(prompt, is_alone=self.logit_processor is not None)

    async def run(self, generation: Generation, seat: Seat) -> AsyncGenerator[Piece, None]:
        """Generate a reply in the caller's seat; yields its pieces."""
        self._active.append(generation)
        self._has_raw_sequence = False
        try:
            async with aclosing(generation.pieces(seat)) as pieces:
                async for piece in pieces:
                    yield piece
        except DeviceError:
            self._seats.raise_if_closed()  # the reason, where the failure is its consequence
            raise
        finally:
            self._active.remove(generation)
            self._message = generation.text
            self.statistics.add(generation.statistics)

    async def forward(self, token_ids: Sequence[int]) -> int:
        """Append ids as they are to a sequence of raw ids and return one sampled token.

        Errors: ConfigValueError for what are no ids of the vocabulary;
        ContextWindowSizeExceededError when they do not fit.
        """
        model, config = self._text_model, self.config
        size = config.vocab_size
        ids = list(token_ids) if isinstance(token_ids, Sequence) else []
        if not ids or not all(isinstance(i, int) and 0 <= i < size for i in ids):
            raise ConfigValueError(
                f"input_ids must be one or more token ids from 0 to {size - 1}, the model's "
                "vocabulary."
            )
        async with self._seats.take(is_alone=True) as seat:
            if not self._has_raw_sequence:
                seat.cached.keep(0)
                model.start(SamplingParams(config.temperature, config.top_p, new_seed()))
                self._has_raw_sequence = True
            for start in range(0, len(ids), model.prefill_chunk_size):
                await model.prefill(ids[start : start + model.prefill_chunk_size])
            return (await model.sample()).token_id

    async def profile(self, n_tokens: int) -> KernelProfile:
        """Time the kernels of a chunk up to `n_tokens` and of the step after; forget the sequence.

        Errors: ConfigValueError, RangeError; AbortError after `interrupt`; OutOfMemoryError,
        DeviceLostError.
        """
        model, config = self._text_model, self.config
        if not isinstance(n_tokens, int) or isinstance(n_tokens, bool):
            raise ConfigValueError(f"n_tokens is {shown(n_tokens)}, but must be an integer.")
        if not 1 <= n_tokens < model.context_window_size:
            raise RangeError(
                f"n_tokens is {shown(n_tokens)}, but must be from 1 to "
                f"{model.context_window_size - 1}: a step needs room in the context window."
            )
        n_interrupts = self._n_interrupts

        def raise_if_ended() -> None:
            self._seats.raise_if_closed()
            if self._n_interrupts > n_interrupts:
                raise AbortError("interrupt_generate() ended the profile.")

        async with self._seats.take(is_alone=True) as seat:
            seat.cached.keep(0)
            self._has_raw_sequence = False
            sampling = SamplingParams(config.temperature, config.top_p)
            try:
                return await self.host.profile_kernels(model, n_tokens, sampling, raise_if_ended)
            except DeviceError:
                self._seats.raise_if_closed()  # where the failure is its consequence
                raise

    def reset(self, *, keep_stats: bool = False) -> None:
        """Forget the last reply and the raw sequence, and the statistics unless kept."""
        self._message = ""
        self._has_raw_sequence = False
        self._seats.forget()
        if not keep_stats:
            self.statistics = Statistics()

    def interrupt(self) -> None:
        """End the replies at hand with "abort", and profiles."""
        self._n_interrupts += 1
        for generation in self._active:
            generation.interrupt()

    def close(self, reason: MLCError) -> None:
        """Free the model; the replies at hand and waiting requests fail with `reason`."""
        if self._seats.is_closed:
            return
        for generation in self._active:
            generation.fail(type(reason)(str(reason)))
        self._seats.close(reason)
        self.grammars.destroy()
        self.tokenizer.destroy()


def new_seed() -> int:
    """Return a seed that differs from call to call, and from worker to worker."""
    # The state of Python's own generator is the same in every worker that boots from a snapshot.
    return int.from_bytes(os.urandom(6), "little")
