"""From a model's record to the loaded model: a language model or an embedding model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from py_engine.config import ChatConfig, ModelRecord
from py_engine.conversation import load_prompt_renderer
from py_engine.errors import UnknownArchitectureError
from py_engine.gpu.types import Device
from py_engine.host import EngineHost
from py_engine.loaded_embedder import EmbeddingModel, is_embedding_model, load_embedding_model
from py_engine.loaded_model import LoadedModel
from py_engine.models.registry import ARCHITECTURES, ENCODERS
from py_engine.progress import LoadReporter
from py_engine.storage.source import ModelSource
from py_engine.tokenizer import Tokenizer, load_tokenizer
from py_engine.weights.checkpoint import Checkpoint, open_checkpoint


async def open_model(
    host: EngineHost,
    source: ModelSource,
    record: ModelRecord,
    chat_opts: Mapping[str, Any] | None,
    device: Device,
    reporter: LoadReporter,
) -> LoadedModel | EmbeddingModel:
    """Load the model of `record` from `source` onto `device`.

    On failure nothing stays in memory.
    """
    reporter.begin_model(record.model_id, is_kept=hasattr(source, "download"))
    checkpoint = await open_checkpoint(source)
    config = ChatConfig.from_json(
        checkpoint.config_json,
        file=checkpoint.config_file,
        overrides=record.overrides,
        chat_opts=chat_opts,
    )
    if is_embedding_model(record, config):
        return await load_embedding_model(host, checkpoint, config, device, reporter)
    tokenizer = await load_tokenizer(checkpoint.tokenizer_source, config)
    active = min(config.active_vocab_size, tokenizer.vocab_size)
    config = dataclasses.replace(config, active_vocab_size=active)
    try:
        return await _load_language_model(host, checkpoint, config, tokenizer, device, reporter)
    except BaseException:
        tokenizer.destroy()
        raise


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
    tokenizer: Tokenizer,
    device: Device,
    reporter: LoadReporter,
) -> LoadedModel:
    renderer = await load_prompt_renderer(checkpoint.tokenizer_source, config, tokenizer)
    text_model = await host.load_model(device, checkpoint, config, reporter.on_load)
    return LoadedModel(config, tokenizer, renderer, text_model, host)
