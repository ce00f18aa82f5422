"""Reads a Hugging Face BERT folder, with what sentence-transformers says of it, as MLC's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.hf_config import read_fields, tokenizer_files, tokenizer_info
from py_engine.weights.quantization import F32

_POOLING_FILE = Path("1_Pooling", "config.json")
_POOLING_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_LAYER_NORM_PARTS = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def encoder_config_json(
    folder: Path, quantization: str, context_window_size: int | None = None
) -> dict[str, Any]:
    """Return the content of `mlc-chat-config.json` for the encoder in `folder`.

    Pooling and normalisation are those of sentence-transformers' files, where there are any. The
    context window defaults to `max_position_embeddings`.
    Errors: ModelFileFormatError for a bad field, UnsupportedModelConfigError for another pooling.
    """
    config = read_fields(folder / "config.json")
    positions = config.integer("max_position_embeddings", minimum=1)
    context = context_window_size or positions
    optional = ("hidden_act", "position_embedding_type")
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    return {
        "version": "0.1.0",
        "model_type": config.string("model_type"),
        "model_task": "embedding",
        "quantization": quantization,
        "model_config": {
            **{name: config.integer(name, minimum=1) for name in (*sizes, "vocab_size")},
            "layer_norm_eps": config.number("layer_norm_eps", 1e-12, above=0),
            "type_vocab_size": config.integer("type_vocab_size", 2, minimum=1),
            "context_window_size": positions,
            "prefill_chunk_size": positions,
            "tensor_parallel_shards": 1,
            # Kept so that a model with such a field is refused for what it is.
            **{name: config.value(name) for name in optional if name in config},
        },
        "vocab_size": config.integer("vocab_size", minimum=1),
        "context_window_size": context,
        "prefill_chunk_size": context,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "tokenizer_files": tokenizer_files(folder),
        "tokenizer_info": tokenizer_info(read_fields(folder / "tokenizer.json")),
        "embedding_metadata": _embedding_metadata(folder),
        "pad_token_id": config.integer("pad_token_id", 0, minimum=0),
    }


def _embedding_metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"model_type": "encoder"}
    if (folder / _POOLING_FILE).is_file():
        found["pooling_strategy"] = _pooling(read_fields(folder / _POOLING_FILE))
    if (folder / "modules.json").is_file():
        modules = (folder / "modules.json").read_text(encoding="utf-8")
        found["normalize"] = "sentence_transformers.models.Normalize" in modules
    return found


def _pooling(fields: JsonFields) -> str:
    modes = [name for name in fields.data if name.startswith("pooling_mode_")]
    used = [name for name in modes if fields.boolean(name)]
    if len(used) != 1 or used[0] not in _POOLING_MODES:
        raise UnsupportedModelConfigError(
            f"{fields.source}: the vectors are pooled by {' and '.join(used) or 'nothing'}, but "
            f"only one of {' and '.join(_POOLING_MODES)} is supported. Choose another model."
        )
    return _POOLING_MODES[used[0]]


def encoder_reader(checkpoint: Checkpoint) -> Callable[[str], F32]:
    """Return the reader of tensors by BertModel's own names, in whichever way they are spelled.

    Checkpoints of a model with a head have the prefix `bert.`, old ones LayerNorms of gamma and
    beta.
    """

    def read(name: str) -> F32:
        found = next((each for each in _spellings(name) if each in checkpoint), name)
        return checkpoint.read(found)

    return read


def _spellings(name: str) -> Iterator[str]:
    old = name
    for new_part, old_part in _LAYER_NORM_PARTS.items():
        old = old.replace(new_part, old_part)
    for prefix in ("", "bert."):
        yield f"{prefix}{name}"
        yield f"{prefix}{old}"
