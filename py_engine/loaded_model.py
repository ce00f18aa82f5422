"""One loaded model: its parts, whose turn it is, and what it said last."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.config import CHAT_CONFIG_FILE, ChatConfig, ModelRecord
from py_engine.conversation import PromptRenderer, load_prompt_renderer
from py_engine.errors import DeviceError, MLCError
from py_engine.generation import CachedTokens, Generation, GenerationParams, Piece, Statistics
from py_engine.gpu.types import Device
from py_engine.host import EngineHost
from py_engine.models.base import SamplingParams, TextModel
from py_engine.progress import LoadReporter
from py_engine.storage.source import ModelSource
from py_engine.tokenizer import Tokenizer, load_tokenizer


class LoadedModel:
    """A model that requests can use one after another, in the order in which they came."""

    def __init__(
        self,
        config: ChatConfig,
        tokenizer: Tokenizer,
        renderer: PromptRenderer,
        text_model: TextModel,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.renderer = renderer
        self.statistics = Statistics()
        self._text_model = text_model
        self._lock = asyncio.Lock()
        self._active: Generation | None = None
        self._message = ""
        self._closed: MLCError | None = None
        self._has_raw_sequence = False
        self._cached = CachedTokens()

    @property
    def message(self) -> str:
        """The text of the reply at hand, else of the last one."""
        return self._message if self._active is None else self._active.text

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the requests before; the model is the caller's inside the block.

        Raises what `close` was given when the model was closed meanwhile.
        """
        async with self._lock:
            self._raise_if_closed()
            yield

    def generation(
        self, prompt: Sequence[int], request: ChatCompletionRequest, choice: int = 0
    ) -> Generation:
        """Return a new reply to `prompt`; the model's configuration fills what is not requested.

        A request's choices have consecutive seeds.
        """
        config = self.config
        sampling = SamplingParams(
            config.temperature if request.temperature is None else request.temperature,
            config.top_p if request.top_p is None else request.top_p,
            (_new_seed() if request.seed is None else request.seed) + choice,
            presence_penalty=config.presence_penalty,
            frequency_penalty=config.frequency_penalty,
            repetition_penalty=config.repetition_penalty,
        )
        params = GenerationParams(
            sampling,
            request.max_tokens,
            self.renderer.stop_token_ids,
            (*self.renderer.stop_strings, *request.stop),
        )
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
            self._raise_if_closed()  # the reason, where the failure is its consequence
            raise
        finally:
            self._active = None
            self._message = generation.text
            self.statistics.add(generation.statistics)

    async def forward(self, token_ids: Sequence[int]) -> int:
        """Append ids as they are to a sequence of raw ids and return one sampled token.

        Raises ContextWindowSizeExceededError when they do not fit.
        """
        model, config = self._text_model, self.config
        async with self.turn():
            if not self._has_raw_sequence:
                self._cached.keep(0)
                model.start(SamplingParams(config.temperature, config.top_p, _new_seed()))
                self._has_raw_sequence = True
            for start in range(0, len(token_ids), model.prefill_chunk_size):
                await model.prefill(token_ids[start : start + model.prefill_chunk_size])
            return (await model.sample()).token_id

    def reset(self, *, keep_stats: bool = False) -> None:
        """Forget the last reply and the raw sequence, and the statistics unless kept."""
        self._message = ""
        self._has_raw_sequence = False
        if not keep_stats:
            self.statistics = Statistics()

    def interrupt(self) -> None:
        """End the reply at hand with "abort"."""
        if self._active is not None:
            self._active.interrupt()

    def close(self, reason: MLCError) -> None:
        """Free the model; the reply at hand and waiting requests fail with `reason`."""
        if self._closed is not None:
            return
        self._closed = reason
        if self._active is not None:
            self._active.fail(_copy(reason))
        self._text_model.destroy()
        self.tokenizer.destroy()

    def _raise_if_closed(self) -> None:
        if self._closed is not None:
            raise _copy(self._closed)


def _copy(error: MLCError) -> MLCError:
    """Return an equal error: one that is raised twice would collect tracebacks."""
    return type(error)(str(error))


def _new_seed() -> int:
    # The state of Python's own generator is the same in every worker that boots from a snapshot.
    return int.from_bytes(os.urandom(6), "little")


async def open_model(
    host: EngineHost,
    record: ModelRecord,
    chat_opts: Mapping[str, Any] | None,
    device: Device,
    reporter: LoadReporter,
) -> LoadedModel:
    """Load the model of `record` onto `device`. On failure nothing stays in memory."""
    reporter.begin_model(record.model_id)
    source = host.open_source(record)
    config = ChatConfig.from_json(
        await source.read_json(CHAT_CONFIG_FILE), overrides=record.overrides, chat_opts=chat_opts
    )
    tokenizer = await load_tokenizer(source, config)
    try:
        return await _finish_loading(host, source, config, tokenizer, device, reporter)
    except BaseException:
        tokenizer.destroy()
        raise


async def _finish_loading(
    host: EngineHost,
    source: ModelSource,
    config: ChatConfig,
    tokenizer: Tokenizer,
    device: Device,
    reporter: LoadReporter,
) -> LoadedModel:
    renderer = await load_prompt_renderer(source, config, tokenizer)
    text_model = await host.load_model(device, source, config, reporter.on_load)
    return LoadedModel(config, tokenizer, renderer, text_model)
