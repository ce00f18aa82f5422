"""The Llama family: from configuration to spec, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import (
    ModelFileFormatError,
    UnknownArchitectureError,
    UnknownQuantizationError,
    UnsupportedModelConfigError,
)
from py_engine.kernels.attention_shape import SlidingWindow
from py_engine.models.registry import decoder_spec
from py_engine.models.spec import MAX_SLIDING_POSITIONS, DecoderSpec

MODEL = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": 128256,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "position_embedding_base": 500000,
}


def spec(
    model: dict[str, Any] | None = None, chat_opts: dict[str, Any] | None = None, **fields: Any
) -> DecoderSpec:
    data = {
        "model_type": "llama",
        "quantization": "q4f16_1",
        "context_window_size": 4096,
        "prefill_chunk_size": 2048,
        "model_config": {**MODEL, **(model or {})},
        **fields,
    }
    return decoder_spec(ChatConfig.from_json(data, chat_opts=chat_opts))


def test_llama_3_2_1b() -> None:
    made = spec()
    assert made.weight_format == "q4f16_1"
    assert (made.n_layers, made.hidden_size, made.intermediate_size) == (16, 2048, 8192)
    assert (made.n_heads, made.n_kv_heads, made.head_dim) == (32, 8, 64)
    assert made.vocab_size == 128256
    assert made.qkv_size == 3072
    assert len(made.rope_inv_freq) == 32
    assert made.lm_head is None
    assert made.embedding == "model.embed_tokens"
    assert made.final_norm == "model.norm"
    assert len(made.layers) == 16
    assert made.layers[15].qkv == "model.layers.15.self_attn.qkv_proj"
    assert made.layers[15].down == "model.layers.15.mlp.down_proj"


def test_untied_model_has_a_head() -> None:
    assert spec({"tie_word_embeddings": False}).lm_head == "lm_head"
    assert spec({"tie_word_embeddings": None}).lm_head == "lm_head"


@pytest.mark.parametrize("head_dim", [0, None])
def test_head_dim_is_derived(head_dim: int | None) -> None:
    assert spec({"head_dim": head_dim}).head_dim == 64


@pytest.mark.parametrize("n_kv_heads", [0, None])
def test_kv_heads_default_to_heads(n_kv_heads: int | None) -> None:
    assert spec({"num_key_value_heads": n_kv_heads}).n_kv_heads == 32


def test_prefill_chunk_is_capped_unless_asked_for() -> None:
    assert spec().prefill_chunk_size == 256
    assert spec(prefill_chunk_size=64).prefill_chunk_size == 64
    assert spec(prefill_chunk_size=-1).prefill_chunk_size == 256
    assert spec(chat_opts={"prefill_chunk_size": 1024}).prefill_chunk_size == 1024
    assert spec(chat_opts={"context_window_size": 128}).prefill_chunk_size == 128


def test_mistral_with_its_window_off() -> None:
    made = spec(model_type="mistral", sliding_window_size=-1)
    assert made.layers[0].gate_up == "model.layers.0.mlp.gate_up_proj"


SLIDING = {"context_window_size": -1, "sliding_window_size": 4096, "attention_sink_size": 4}


def test_sliding_window_and_sinks() -> None:
    made = spec(model_type="mistral", **SLIDING)
    assert made.window == SlidingWindow(size=4096, sinks=4, ring=4092 + 256 - 1)
    assert made.context_window_size == MAX_SLIDING_POSITIONS
    assert made.attention.slots == 4096 + 256 - 1


def test_cache_is_as_long_as_the_context() -> None:
    assert spec().window is None
    assert spec().attention.slots == spec().context_window_size == 4096


def test_a_chunk_may_be_longer_than_the_window() -> None:
    small = {"sliding_window_size": 100, "attention_sink_size": 0}
    made = spec(model_type="mistral", **{**SLIDING, **small})
    assert made.prefill_chunk_size == 256
    assert made.attention.slots == 100 + 256 - 1


def test_unknown_architecture_lists_the_known() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"'mamba'.*llama, mistral"):
        spec(model_type="mamba")


def test_unknown_quantization_lists_the_known() -> None:
    with pytest.raises(UnknownQuantizationError, match=r"is 'q3f16_1'.*q4f16_1, q4f32_1"):
        spec(quantization="q3f16_1")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"hidden_size": 2050}, r"hidden_size is 2050.*multiple of 32"),
        ({"intermediate_size": 8200}, r"intermediate_size is 8200.*multiple of 32"),
        ({"num_attention_heads": 3, "head_dim": 36}, r"head_dim is 108.*multiple of 32"),
        ({"head_dim": 66}, r"head_dim is 66.*multiple of 8"),
        ({"num_attention_heads": 8, "head_dim": 20}, r"head_dim is 20.*multiple of 8"),
        ({"head_dim": 288}, r"head_dim is 288.*at most 256"),
        ({"num_key_value_heads": 5}, r"num_key_value_heads is 5.*divisor.*32"),
        ({"attention_bias": True}, r"attention_bias is true"),
        ({"mlp_bias": True}, r"mlp_bias is true"),
        ({"hidden_act": "gelu"}, r"hidden_act is 'gelu'.*silu"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, r"rope_type is 'yarn'"),
    ],
)
def test_unsupported_models_are_refused(model: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelConfigError, match=message):
        spec(model)


@pytest.mark.parametrize(
    "name", ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers"]
)
def test_missing_field_is_named(name: str) -> None:
    wanted = rf"mlc-chat-config\.json: model_config\.{name} is missing; it must be an integer"
    with pytest.raises(ModelFileFormatError, match=wanted):
        spec({name: None})
