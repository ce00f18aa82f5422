"""BERT and the models of its shape: snowflake-arctic-embed, bge, e5, gte, all-MiniLM."""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.errors import (
    EmbeddingChunkingUnsupportedError,
    EmbeddingSlidingWindowError,
    UnsupportedModelConfigError,
)
from py_engine.json_fields import JsonFields, shown
from py_engine.kernels.encoder import HEAD_DIM_MULTIPLE, MAX_HEAD_DIM
from py_engine.kernels.formats import BLOCK
from py_engine.models.embedder import embedding_options
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.family import Family
from py_engine.weights.parameters import (
    FileKind,
    NameTable,
    Spelling,
    linear_names,
    named,
    norm_names,
)

BATCH_TOKENS = 2048
"""Tokens computed together: enough to fill a large GPU, and its activations stay small."""


def bert_spec(config: ChatConfig) -> EncoderSpec:
    """Turn the configuration of a BERT-shaped encoder into a spec.

    Reads MLC's field names and Hugging Face's. Errors: UnsupportedModelConfigError for a value
    that the kernels cannot run, EmbeddingSlidingWindowError, EmbeddingChunkingUnsupportedError,
    ModelFileFormatError for a missing or wrong field.
    """
    _check_windows(config)
    fields = config.model_fields()
    options = embedding_options(config)
    window = config.context_window_size
    batch_tokens = max(window, min(BATCH_TOKENS, window * options.max_batch_size))
    spec = EncoderSpec(
        n_layers=fields.integer("num_hidden_layers", minimum=1),
        hidden_size=fields.integer("hidden_size", minimum=1),
        intermediate_size=fields.integer("intermediate_size", minimum=1),
        n_heads=fields.integer("num_attention_heads", minimum=1),
        vocab_size=config.vocab_size,
        n_positions=_n_positions(fields, window),
        n_token_types=fields.integer("type_vocab_size", 2, minimum=1),
        layer_norm_eps=fields.number("layer_norm_eps", 1e-12, above=0),
        context_window_size=window,
        max_batch_size=min(options.max_batch_size, batch_tokens),
        max_batch_tokens=batch_tokens,
        pooling=options.pooling,
        normalize=options.normalize,
    )
    _check_variant(fields)
    _check_shapes(spec, fields)
    return spec


_LAYER = "encoder.layer.{i}"

_SHARED: NameTable = {
    "embedding": named("embeddings.word_embeddings"),
    "positions": named("embeddings.position_embeddings"),
    "token_types": named("embeddings.token_type_embeddings"),
    **norm_names("embedding_norm", "embeddings.LayerNorm"),
    **linear_names("layers.{i}.output", f"{_LAYER}.attention.output.dense"),
    **norm_names("layers.{i}.attention_output_norm", f"{_LAYER}.attention.output.LayerNorm"),
    **linear_names("layers.{i}.up", f"{_LAYER}.intermediate.dense"),
    **linear_names("layers.{i}.down", f"{_LAYER}.output.dense"),
    **norm_names("layers.{i}.mlp_output_norm", f"{_LAYER}.output.LayerNorm"),
}

BERT_NAMES: dict[FileKind, NameTable] = {
    "mlc": {**_SHARED, **linear_names("layers.{i}.qkv", f"{_LAYER}.attention.self.qkv")},
    "hf": {
        **_SHARED,
        **linear_names(
            "layers.{i}.qkv",
            *(f"{_LAYER}.attention.self.{part}" for part in ("query", "key", "value")),
        ),
    },
}

_OLD_NORMS = ((".LayerNorm.weight", ".LayerNorm.gamma"), (".LayerNorm.bias", ".LayerNorm.beta"))

BERT_SPELLINGS = (
    # Saved with a head, and by old versions of the library.
    Spelling(prefixes=(("", "bert."),)),
    Spelling(suffixes=_OLD_NORMS),
    Spelling(prefixes=(("", "bert."),), suffixes=_OLD_NORMS),
)


def _n_positions(fields: JsonFields, window: int) -> int:
    # MLC's table has as many rows as the context window that the model was converted with.
    listed = fields.integer("max_position_embeddings", window, minimum=1)
    return fields.integer("context_window_size", listed, minimum=1)


def _check_windows(config: ChatConfig) -> None:
    """Refuse windows that would split a text: every token must see all others."""
    window, chunk = config.context_window_size, config.prefill_chunk_size
    if config.sliding_window_size > 0:
        raise EmbeddingSlidingWindowError(
            f"{config.file}: sliding_window_size is {config.sliding_window_size}, but an embedding "
            "model has no sliding window. Set it to -1 and context_window_size to a positive size "
            "in chat_opts."
        )
    if 0 < chunk < window:
        raise EmbeddingChunkingUnsupportedError(
            f"{config.file}: prefill_chunk_size is {chunk} and context_window_size is {window}, "
            "but an embedding model reads a text in one chunk. Set both to the same size in "
            "chat_opts."
        )


def _check_variant(fields: JsonFields) -> None:
    """Refuse what looks like BERT but computes something else."""
    for name, wanted in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        value = fields.string(name, wanted)
        if value != wanted:
            raise UnsupportedModelConfigError(
                f"{fields.where(name)} is {shown(value)}, but only {wanted} is supported for BERT. "
                "Choose another model."
            )


def _check_shapes(spec: EncoderSpec, fields: JsonFields) -> None:
    """Refuse shapes that the kernels have no code for."""
    for name, size in (
        ("hidden_size", spec.hidden_size),
        ("intermediate_size", spec.intermediate_size),
    ):
        if size % BLOCK:
            raise _unsupported(fields, name, size, f"a multiple of {BLOCK}")
    if spec.hidden_size % spec.n_heads:
        wanted = f"a divisor of hidden_size, {spec.hidden_size}"
        raise _unsupported(fields, "num_attention_heads", spec.n_heads, wanted)
    if spec.head_dim % HEAD_DIM_MULTIPLE or spec.head_dim > MAX_HEAD_DIM:
        wanted = f"a multiple of {HEAD_DIM_MULTIPLE} and at most {MAX_HEAD_DIM}"
        raise _unsupported(fields, "hidden_size / num_attention_heads", spec.head_dim, wanted)
    if spec.n_positions < spec.context_window_size:
        raise UnsupportedModelConfigError(
            f"{fields.source}: context_window_size is {spec.context_window_size}, but the model "
            f"has positions for {spec.n_positions} tokens. Set it to at most that in chat_opts."
        )


def _unsupported(
    fields: JsonFields, name: str, value: int, wanted: str
) -> UnsupportedModelConfigError:
    return UnsupportedModelConfigError(
        f"{fields.where(name)} is {value}, but the kernels need {wanted}. Choose another model."
    )


BERT = Family(bert_spec, BERT_NAMES, BERT_SPELLINGS)
