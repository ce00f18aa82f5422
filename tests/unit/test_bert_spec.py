"""The BERT family and its options: from configuration to spec, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import (
    ConfigurationFieldError,
    EmbeddingChunkingUnsupportedError,
    EmbeddingSlidingWindowError,
    MLCError,
    ModelFileFormatError,
    UnknownArchitectureError,
    UnsupportedModelConfigError,
)
from py_engine.models.embedder import EmbeddingOptions, embedding_options
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.registry import ENCODERS, decoder_spec, encoder_spec
from py_engine.weights.parameters import fitting_names, layer_names
from tests.support.mlc_files import mlc_shapes

MODEL = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "context_window_size": 512,
    "prefill_chunk_size": 512,
    "tensor_parallel_shards": 1,
    "head_dim": 32,
    "max_batch_size": 4,
}
"""`model_config` of snowflake-arctic-embed-s as MLC-LLM's converter writes it."""


def config(
    model: dict[str, Any] | None = None, chat_opts: dict[str, Any] | None = None, **fields: Any
) -> ChatConfig:
    data = {
        "model_type": "bert",
        "quantization": "q0f32",
        "model_config": {**MODEL, **(model or {})},
        "context_window_size": 512,
        "prefill_chunk_size": 512,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        **fields,
    }
    return ChatConfig.from_json(data, chat_opts=chat_opts)


def spec(*args: Any, **fields: Any) -> EncoderSpec:
    return encoder_spec(config(*args, **fields))


def test_arctic_embed_s() -> None:
    made = spec()
    assert (made.hidden_size, made.n_heads, made.head_dim) == (384, 12, 32)
    assert (made.n_positions, made.n_token_types, made.context_window_size) == (512, 2, 512)
    assert (made.max_batch_size, made.max_batch_tokens) == (4, 2048)
    assert (made.pooling, made.normalize) == ("cls", False)
    assert made.n_layers == 12


def test_tensors_have_the_names_and_shapes_of_mlc() -> None:
    shapes = mlc_shapes(config())
    layer = "encoder.layer.11"
    expected = {
        "embeddings.word_embeddings.weight": (30522, 384),
        "embeddings.position_embeddings.weight": (512, 384),
        "embeddings.token_type_embeddings.weight": (2, 384),
        "embeddings.LayerNorm.weight": (384,),
        "embeddings.LayerNorm.bias": (384,),
        f"{layer}.attention.self.qkv.weight": (1152, 384),
        f"{layer}.attention.self.qkv.bias": (1152,),
        f"{layer}.attention.output.dense.weight": (384, 384),
        f"{layer}.attention.output.dense.bias": (384,),
        f"{layer}.attention.output.LayerNorm.weight": (384,),
        f"{layer}.attention.output.LayerNorm.bias": (384,),
        f"{layer}.intermediate.dense.weight": (1536, 384),
        f"{layer}.intermediate.dense.bias": (1536,),
        f"{layer}.output.dense.weight": (384, 1536),
        f"{layer}.output.dense.bias": (384,),
        f"{layer}.output.LayerNorm.weight": (384,),
        f"{layer}.output.LayerNorm.bias": (384,),
    }
    assert {name: shapes[name] for name in expected} == expected
    assert len(shapes) == 5 + 12 * 12


def test_names_in_hugging_face_s_files_old_and_new() -> None:
    family = ENCODERS["bert"]
    table = layer_names(family.names["hf"], 12)
    attention = "encoder.layer.11.attention"
    assert table["layers.11.qkv.bias"].names == tuple(
        f"{attention}.self.{part}.bias" for part in ("query", "key", "value")
    )
    old = fitting_names(table, family.spellings, {"bert.embeddings.LayerNorm.gamma"})
    assert old["layers.11.output"].names == (f"bert.{attention}.output.dense",)
    norm = f"bert.{attention}.output.LayerNorm"
    assert old["layers.11.attention_output_norm"].names == (f"{norm}.gamma",)
    assert old["layers.11.attention_output_norm.bias"].names == (f"{norm}.beta",)
    headed = fitting_names(table, family.spellings, {"bert.embeddings.LayerNorm.weight"})
    assert headed["embedding_norm"].names == ("bert.embeddings.LayerNorm.weight",)


def test_quantised_embeddings_are_codes_and_scales() -> None:
    shapes = mlc_shapes(config(quantization="q4f16_1"))
    name = "embeddings.position_embeddings"
    assert (shapes[f"{name}.q_weight"], shapes[f"{name}.q_scale"]) == ((512, 48), (512, 12))
    assert shapes["encoder.layer.0.output.dense.bias"] == (384,)


def test_a_shorter_context_keeps_the_table_of_positions() -> None:
    made = spec(chat_opts={"context_window_size": 100, "prefill_chunk_size": 100})
    assert (made.context_window_size, made.n_positions) == (100, 512)
    assert made.max_batch_tokens == 400
    assert spec(chat_opts={"max_batch_size": 1}).max_batch_tokens == 512
    assert spec(chat_opts={"max_batch_size": 10**6}).max_batch_size == 2048
    long = spec({"context_window_size": 8192}, context_window_size=8192, prefill_chunk_size=-1)
    assert long.max_batch_tokens == 8192


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, EmbeddingOptions("cls", False, True, 4)),
        (
            {"pooling": "mean", "normalize": True, "add_special_tokens": False},
            EmbeddingOptions("mean", True, False, 4),
        ),
        ({"max_batch_size": 7}, EmbeddingOptions("cls", False, True, 7)),
    ],
)
def test_options(options: dict[str, Any], expected: EmbeddingOptions) -> None:
    assert embedding_options(config(chat_opts=options)) == expected
    assert embedding_options(config(**options)) == expected


def test_the_files_of_the_model_give_defaults() -> None:
    metadata = {"pooling_strategy": "mean", "normalize": True}
    options = embedding_options(config(embedding_metadata=metadata))
    assert (options.pooling, options.normalize) == ("mean", True)
    options = embedding_options(
        config(chat_opts={"pooling": "cls", "normalize": False}, embedding_metadata=metadata)
    )
    assert (options.pooling, options.normalize) == ("cls", False)


REFUSED: list[tuple[dict[str, Any], type[MLCError], str]] = [
    ({"prefill_chunk_size": 128}, EmbeddingChunkingUnsupportedError, "prefill_chunk_size is 128"),
    (
        {"sliding_window_size": 256, "context_window_size": -1, "attention_sink_size": 0},
        EmbeddingSlidingWindowError,
        "sliding_window_size is 256",
    ),
    ({"model": {"hidden_act": "gelu_new"}}, UnsupportedModelConfigError, "hidden_act is 'gelu_new"),
    (
        {"model": {"position_embedding_type": "relative_key"}},
        UnsupportedModelConfigError,
        "position_embedding_type",
    ),
    ({"model": {"hidden_size": 390}}, UnsupportedModelConfigError, "hidden_size is 390"),
    ({"model": {"intermediate_size": 100}}, UnsupportedModelConfigError, "a multiple of 32"),
    ({"model": {"num_attention_heads": 5}}, UnsupportedModelConfigError, "a divisor of"),
    ({"model": {"num_attention_heads": 64}}, UnsupportedModelConfigError, "multiple of 4"),
    ({"model": {"num_attention_heads": 1}}, UnsupportedModelConfigError, "at most 256"),
    ({"model": {"context_window_size": 128}}, UnsupportedModelConfigError, "positions for 128"),
    ({"model_type": "roberta"}, UnknownArchitectureError, "'roberta'.*Known are bert"),
    ({"pooling": "max"}, ModelFileFormatError, 'pooling is \'max\', but must be "cls" or "mean"'),
    ({"chat_opts": {"pooling": 1}}, ConfigurationFieldError, "chat_opts: pooling is 1"),
    ({"chat_opts": {"normalize": "yes"}}, ConfigurationFieldError, "normalize is 'yes'"),
    ({"chat_opts": {"max_batch_size": 0}}, ConfigurationFieldError, "max_batch_size is 0"),
    (
        {"embedding_metadata": {"pooling_strategy": "last"}},
        ModelFileFormatError,
        "embedding_metadata.pooling_strategy is 'last'",
    ),
]


@pytest.mark.parametrize(("fields", "error", "text"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused(fields: dict[str, Any], error: type[MLCError], text: str) -> None:
    with pytest.raises(error, match=text):
        spec(**fields)


def test_an_encoder_is_no_language_model() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"'bert'.*language model"):
        decoder_spec(config())
