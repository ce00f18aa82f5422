"""From a model's record to the loaded model, a language model or an embedding model.

`open_model` reads what is small, for all models of a load; `load_opened` loads one.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from py_engine.config import ChatConfig, ModelRecord
from py_engine.conversation import PromptRenderer, load_prompt_renderer
from py_engine.errors import UnknownArchitectureError
from py_engine.gpu.types import Device
from py_engine.host import EngineHost
from py_engine.loaded_embedder import EmbeddingModel, is_embedding_model, load_embedding_model
from py_engine.loaded_model import LoadedModel
from py_engine.models.base import TextModel
from py_engine.models.memory_plan import require_memory_together
from py_engine.models.registry import ARCHITECTURES, ENCODERS
from py_engine.progress import LoadReporter
from py_engine.storage.source import ModelSource, keeps_files
from py_engine.tokenizer import Tokenizer, load_tokenizer
from py_engine.weights.checkpoint import Checkpoint, open_checkpoint


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model of which only the configuration and the index of its weights were read."""

    record: ModelRecord
    source: ModelSource
    checkpoint: Checkpoint
    config: ChatConfig


async def open_model(
    source: ModelSource, record: ModelRecord, chat_opts: Mapping[str, Any] | None
) -> OpenedModel:
    """Read the configuration and the index of the model of `record` from `source`.

    Errors: those of `open_checkpoint` and `ChatConfig.from_json`.
    """
    checkpoint = await open_checkpoint(source)
    config = ChatConfig.from_json(
        checkpoint.config_json,
        file=checkpoint.config_file,
        overrides=record.overrides,
        chat_opts=chat_opts,
    )
    return OpenedModel(record, source, checkpoint, config)


async def require_memory_for_all(
    host: EngineHost, models: Sequence[OpenedModel], device: Device
) -> None:
    """Refuse models that do not fit together into the device's limit, before any download.

    One alone is left to its own load. Errors: OutOfMemoryError, and those of `plan_memory`.
    """
    if len(models) > 1 and device.memory_limit is not None:
        plans = {
            opened.record.model_id: await host.plan_memory(device, opened.checkpoint, opened.config)
            for opened in models
        }
        require_memory_together(plans, device)


async def load_opened(
    host: EngineHost, opened: OpenedModel, device: Device, reporter: LoadReporter
) -> LoadedModel | EmbeddingModel:
    """Load a model onto `device`. On failure nothing of it stays in memory."""
    reporter.begin_model(is_kept=keeps_files(opened.source))
    record, checkpoint, config = opened.record, opened.checkpoint, opened.config
    if is_embedding_model(record, config):
        return await load_embedding_model(host, checkpoint, config, device, reporter)
    return await _load_language_model(host, checkpoint, config, device, reporter)


def require_known_architecture(record: ModelRecord) -> None:
    """Refuse a record of an architecture that is not here, before anything of it is fetched.

    Raises UnknownArchitectureError.
    """
    known = {*ARCHITECTURES, *ENCODERS}
    if record.architecture is not None and record.architecture not in known:
        raise UnknownArchitectureError(
            f"{record.model_id} is a model of the architecture {record.architecture!r}, which is "
            f"not supported. Supported are {', '.join(sorted(known))}: choose such a model."
        )


async def _load_language_model(
    host: EngineHost,
    checkpoint: Checkpoint,
    config: ChatConfig,
    device: Device,
    reporter: LoadReporter,
) -> LoadedModel:
    """Load tokenizer and template while weights and kernels load."""
    text = _LoadingText(checkpoint.tokenizer_source, config)
    text_model: TextModel | None = None
    try:
        text_model = await host.load_model(device, checkpoint, config, reporter.on_load, text)
        tokenizer, renderer = await text.parts()
    except BaseException:
        await text.drop()
        if text_model is not None:
            text_model.destroy()
        raise
    active = min(config.active_vocab_size, tokenizer.vocab_size)
    dtype = text_model.activation_dtype
    config = dataclasses.replace(config, active_vocab_size=active, activation_dtype=dtype)
    return LoadedModel(config, tokenizer, renderer, text_model, host)


_Text = tuple[Tokenizer, PromptRenderer]


class _LoadingText:
    """A `LoadingTokenizer`, with the template. It begins to load when it is first asked for.

    By then a GPU has kernels to compile: a large vocabulary keeps Python busy for a second.
    """

    def __init__(self, source: ModelSource, config: ChatConfig) -> None:
        self._source = source
        self._config = config
        self._loading: asyncio.Future[_Text] | None = None

    async def vocab_size(self) -> int:
        tokenizer, _ = await self.parts()
        return tokenizer.vocab_size

    async def token_ids(self, text: str) -> list[int]:
        tokenizer, _ = await self.parts()
        return [*tokenizer.template.prefix, *tokenizer.encode(text)]

    async def parts(self) -> _Text:
        """Return tokenizer and renderer; whoever stops waiting leaves them to the others."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(_load_text(self._source, self._config))
        return await asyncio.shield(self._loading)

    async def drop(self) -> None:
        """End the load, and free what it made."""
        if self._loading is None:
            return
        self._loading.cancel()
        [text] = await asyncio.gather(self._loading, return_exceptions=True)
        if not isinstance(text, BaseException):
            text[0].destroy()


async def _load_text(source: ModelSource, config: ChatConfig) -> tuple[Tokenizer, PromptRenderer]:
    tokenizer = await load_tokenizer(source, config)
    try:
        return tokenizer, await load_prompt_renderer(source, config, tokenizer)
    except BaseException:
        tokenizer.destroy()
        raise
