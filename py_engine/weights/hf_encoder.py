"""Makes the content of `mlc-chat-config.json` for a BERT repository of Hugging Face."""

from __future__ import annotations

from typing import Any

from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields
from py_engine.weights.hf_files import HfFiles

_POOLING_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_NORMALIZE = "sentence_transformers.models.Normalize"


def encoder_config_json(files: HfFiles, quantization: str) -> dict[str, Any]:
    """Return the content of `mlc-chat-config.json` for an encoder.

    Pooling and normalisation are those of sentence-transformers' files, where there are any. The
    context window is `max_position_embeddings`.
    Errors: ModelFileFormatError for a bad field, UnsupportedModelConfigError for another pooling.
    """
    config = files.config
    positions = config.integer("max_position_embeddings", minimum=1)
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    return {
        "version": "0.1.0",
        "model_type": config.string("model_type"),
        "model_task": "embedding",
        "quantization": quantization,
        "model_config": {
            **config.data,
            **{name: config.integer(name, minimum=1) for name in (*sizes, "vocab_size")},
            "layer_norm_eps": config.number("layer_norm_eps", 1e-12, above=0),
            "type_vocab_size": config.integer("type_vocab_size", 2, minimum=1),
            "context_window_size": positions,
            "prefill_chunk_size": positions,
            "tensor_parallel_shards": 1,
        },
        "vocab_size": config.integer("vocab_size", minimum=1),
        "context_window_size": positions,
        "prefill_chunk_size": positions,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "tokenizer_files": list(files.tokenizer_files),
        "embedding_metadata": _embedding_metadata(files),
        "pad_token_id": config.integer("pad_token_id", 0, minimum=0),
    }


def _embedding_metadata(files: HfFiles) -> dict[str, Any]:
    found: dict[str, Any] = {"model_type": "encoder"}
    if files.pooling is not None:
        found["pooling_strategy"] = _pooling(files.pooling)
    if files.modules is not None:
        found["normalize"] = _NORMALIZE in files.modules
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
