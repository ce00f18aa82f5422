"""One loaded language model: its parts, whose turn it is, and what it said last."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing

from py_engine.config import ChatConfig
from py_engine.conversation import PromptRenderer
from py_engine.errors import ConfigValueError, DeviceError, MLCError, RangeError
from py_engine.generation import (
    CachedTokens,
    Generation,
    GenerationParams,
    LogitProcessor,
    Piece,
    Statistics,
)
from py_engine.grammars import ModelGrammars
from py_engine.host import EngineHost
from py_engine.json_values import shown
from py_engine.models.base import SamplingParams, TextModel
from py_engine.models.images import VisionModel
from py_engine.models.profile import StepProfile
from py_engine.tokenizer import Tokenizer
from py_engine.turns import Turns


class LoadedModel:
    """A model that requests can use one after another, in the order in which they came.

    `logit_processor` changes the logits of every reply where it is set.
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
        self._turns = Turns()
        self._active: Generation | None = None
        self._message = ""
        self._has_raw_sequence = False
        self._cached = CachedTokens()

    @property
    def message(self) -> str:
        """The text of the reply at hand, else of the last one."""
        return self._message if self._active is None else self._active.text

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

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait for the requests before; the model is the caller's inside the block.

        Raises what `close` was given when the model was closed meanwhile.
        """
        return self._turns.take()

    async def load_libraries(self) -> None:
        """Load what the logit processor needs, if there is one."""
        if self.logit_processor is not None:
            await self.host.load_numpy()

    def generation(self, prompt: Sequence[int], params: GenerationParams) -> Generation:
        """Return a new reply to `prompt`. Errors: ContextWindowSizeExceededError."""
        return Generation(self._text_model, self.tokenizer, prompt, params, self._cached)

    async def run(self, generation: Generation) -> AsyncGenerator[Piece, None]:
        """Generate a reply inside the caller's `turn`; yields its pieces."""
        self._active = generation
        self._has_raw_sequence = False
        try:
            async with aclosing(generation.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        except DeviceError:
            self._turns.raise_if_closed()  # the reason, where the failure is its consequence
            raise
        finally:
            self._active = None
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
        async with self.turn():
            if not self._has_raw_sequence:
                self._cached.keep(0)
                model.start(SamplingParams(config.temperature, config.top_p, new_seed()))
                self._has_raw_sequence = True
            for start in range(0, len(ids), model.prefill_chunk_size):
                await model.prefill(ids[start : start + model.prefill_chunk_size])
            return (await model.sample()).token_id

    async def profile(self, n_tokens: int) -> StepProfile:
        """Time the kernels of a step after `n_tokens` tokens, and forget the sequence.

        Errors: ConfigValueError, RangeError; OutOfMemoryError, DeviceLostError.
        """
        model, config = self._text_model, self.config
        if not isinstance(n_tokens, int) or isinstance(n_tokens, bool):
            raise ConfigValueError(f"n_tokens is {shown(n_tokens)}, but must be an integer.")
        if not 1 <= n_tokens < model.context_window_size:
            raise RangeError(
                f"n_tokens is {shown(n_tokens)}, but must be from 1 to "
                f"{model.context_window_size - 1}: a step needs room in the context window."
            )
        async with self.turn():
            self._cached.keep(0)
            self._has_raw_sequence = False
            sampling = SamplingParams(config.temperature, config.top_p)
            stop = self._turns.raise_if_closed
            try:
                return await self.host.profile_step(model, n_tokens, sampling, stop)
            except DeviceError:
                stop()  # the reason, where the failure is its consequence
                raise

    def reset(self, *, keep_stats: bool = False) -> None:
        """Forget the last reply and the raw sequence, and the statistics unless kept."""
        self._message = ""
        self._has_raw_sequence = False
        if self._active is None:
            self._cached.keep(0)
        if not keep_stats:
            self.statistics = Statistics()

    def interrupt(self) -> None:
        """End the reply at hand with "abort"."""
        if self._active is not None:
            self._active.interrupt()

    def close(self, reason: MLCError) -> None:
        """Free the model; the reply at hand and waiting requests fail with `reason`."""
        if self._turns.is_closed:
            return
        self._turns.close(reason)
        if self._active is not None:
            self._active.fail(type(reason)(str(reason)))
        self._text_model.destroy()
        self.grammars.destroy()
        self.tokenizer.destroy()


def new_seed() -> int:
    """Return a seed that differs from call to call, and from worker to worker."""
    # The state of Python's own generator is the same in every worker that boots from a snapshot.
    return int.from_bytes(os.urandom(6), "little")
