"""The configuration of a GGUF model: what `config.json` says of it elsewhere, from its metadata."""

from __future__ import annotations

from typing import Any

from py_engine.errors import UnknownArchitectureError, UnsupportedModelConfigError
from py_engine.json_fields import JsonFields, shown
from py_engine.weights.gguf import GgufFile
from py_engine.weights.gguf_architectures import ARCHITECTURES, Architecture, Names, QueryScale
from py_engine.weights.gguf_rope import local_rope_parameters, rope_parameters
from py_engine.weights.gguf_tokenizer import gguf_tokenizer_info

QUANTIZATION = "gguf"
"""`quantization` of a GGUF model's configuration: every matrix has its own."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PREFILL_CHUNK_SIZE = 2048

_MEAN, _FIRST = 1, 2
_POOLINGS = {_MEAN: "mean", _FIRST: "cls"}
"""GGUF's `pooling_type`s."""


def gguf_config_json(file: GgufFile) -> dict[str, Any]:
    """Return the content of `mlc-chat-config.json` for a GGUF model.

    `model_config` has the fields of Hugging Face's `config.json`. Errors: UnknownArchitectureError,
    UnsupportedModelConfigError, ModelFileFormatError.
    """
    general = JsonFields(file.metadata, file.path)
    name = general.string("general.architecture")
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        raise UnknownArchitectureError(
            f"{file.path}: general.architecture is {shown(name)}, which is not a known "
            f"architecture. Known are {', '.join(sorted(ARCHITECTURES))}: choose such a model."
        )
    fields = _scoped(file, name)
    _refuse_parts(general)
    _refuse_experts(fields)
    vocabulary = file.vocabulary
    embedding = file.tensors.get("token_embd.weight")
    vocab_size = embedding.shape[0] if embedding else len(vocabulary.tokens)
    context = fields.integer("context_length", minimum=1)
    special_ids = {
        "bos_token_id": vocabulary.special_ids.get("bos"),
        "eos_token_id": list(vocabulary.end_ids),
        "pad_token_id": vocabulary.special_ids.get("padding"),
    }
    return {
        "version": "0.1.0",
        "model_type": architecture.model_type,
        "quantization": QUANTIZATION,
        "model_config": {
            "model_type": architecture.model_type,
            "vocab_size": vocab_size,
            **_model_config(file, architecture, fields),
        },
        "vocab_size": vocab_size,
        "context_window_size": context,
        "prefill_chunk_size": min(PREFILL_CHUNK_SIZE, context),
        "temperature": general.number("general.sampling.temp", 1.0, minimum=0),
        "top_p": general.number("general.sampling.top_p", 1.0, above=0, maximum=1),
        "tokenizer_files": list(TOKENIZER_FILES),
        "tokenizer_info": gguf_tokenizer_info(vocabulary, general),
        **{name: value for name, value in special_ids.items() if value is not None},
        **(_embedding(fields) if architecture.is_encoder else {}),
    }


def _embedding(fields: JsonFields) -> dict[str, Any]:
    """Return how an embedding model makes one vector of a text.

    Files do not say whether vectors are normalised: llama.cpp does it, and so do the models' cards.
    """
    kind = fields.integer("pooling_type", _MEAN, minimum=0)
    if kind not in _POOLINGS:
        raise UnsupportedModelConfigError(
            f"{fields.where('pooling_type')} is {kind}, but only {_MEAN} (mean) and {_FIRST} (the "
            "first token's vector) are supported. Choose another model."
        )
    metadata = {
        "model_type": "encoder",
        "pooling_strategy": _POOLINGS[kind],
        "normalize": True,
    }
    return {"model_task": "embedding", "embedding_metadata": metadata}


def _scoped(file: GgufFile, architecture: str) -> JsonFields:
    """Return the metadata whose names begin with the architecture's, without it.

    A number for each layer that is the same in all layers counts as one.
    """
    prefix = f"{architecture}."
    found = {
        key.removeprefix(prefix): _uniform(value)
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    return JsonFields(found, f"{file.path}, metadata of {architecture}")


def _uniform(value: Any) -> Any:
    is_uniform = isinstance(value, list) and 0 < len(value) == value.count(value[0])
    return value[0] if is_uniform else value


def _refuse_parts(general: JsonFields) -> None:
    kind = general.string("general.type", "model")
    if kind != "model":
        raise UnsupportedModelConfigError(
            f"{general.where('general.type')} is {shown(kind)}, which is no model by itself. "
            "Choose the file of the whole model."
        )


def _refuse_experts(fields: JsonFields) -> None:
    if fields.integer("expert_count", 0) > 0:
        raise UnsupportedModelConfigError(
            f"{fields.where('expert_count')} is {fields.value('expert_count')}, but mixtures of "
            "experts are not supported. Choose a dense model."
        )


def _model_config(file: GgufFile, architecture: Architecture, fields: JsonFields) -> dict[str, Any]:
    config = {
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **architecture.constants,
        **stated(fields, architecture.metadata),
        **{
            name: f"blk.0.{tensor}" in file.tensors for name, tensor in architecture.tensors.items()
        },
    }
    if not config.get("sliding_window", True):
        del config["sliding_window"]  # Phi-4 says 0 for none
    if architecture.queries is not None:
        config["query_pre_attn_scalar"] = _query_scalar(fields, architecture.queries)
    if architecture.window_period is not None:
        config["layer_types"] = _layer_types(fields, architecture.window_period)
    if (token_types := file.tensors.get("token_types.weight")) is not None:
        config["type_vocab_size"] = token_types.shape[0]
    if architecture.n_ropes:
        size = head_dim(fields)
        rope = rope_parameters(file.rope_factors, fields, size)
        config["rope_parameters"] = rope
        if architecture.n_ropes == 2:
            local = local_rope_parameters(fields, size)
            config["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
    return config


def stated(fields: JsonFields, names: Names) -> dict[str, Any]:
    """Return those of the fields `names` that the metadata has."""
    found = {ours: fields.value(theirs) for ours, theirs in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def head_width(fields: JsonFields) -> int:
    """Return the hidden size divided by the heads."""
    width = fields.integer("embedding_length", minimum=1)
    return max(width // fields.integer("attention.head_count", minimum=1), 1)


def head_dim(fields: JsonFields) -> int:
    """Return the size of a head."""
    return fields.integer("attention.key_length", head_width(fields), minimum=1)


def _query_scalar(fields: JsonFields, queries: QueryScale) -> float:
    """Return the number whose root attention is divided by."""
    scale = fields.number("attention.scale", 0.0, minimum=0)
    if scale:
        return 1 / scale**2
    is_wide = fields.integer("block_count", minimum=1) == queries.wide_layers
    return head_width(fields) if is_wide else head_dim(fields)


def _layer_types(fields: JsonFields, period: int) -> list[str]:
    """Return Hugging Face's `layer_types`; files may state the period, or each layer's kind."""
    n_layers = fields.integer("block_count", minimum=1, maximum=1000)
    pattern = fields.value("attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) == n_layers:
        slides = [bool(each) for each in pattern]
    else:
        stated_period = pattern if isinstance(pattern, int) and pattern > 1 else period
        slides = [bool((index + 1) % stated_period) for index in range(n_layers)]
    return ["sliding_attention" if each else "full_attention" for each in slides]
