"""The Llama family: from configuration to spec, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import (
    ModelFileFormatError,
    UnknownArchitectureError,
    UnsupportedModelConfigError,
)
from py_engine.kernels.attention_shape import SlidingWindow
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.registry import ARCHITECTURES, decoder_spec
from py_engine.models.spec import MAX_SLIDING_POSITIONS, DecoderSpec
from py_engine.weights.parameters import MatrixParameter, VectorParameter, layer_names

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
    heads = made.heads
    assert (made.n_layers, made.hidden_size, made.mlp.intermediate_size) == (16, 2048, 8192)
    assert (heads.n_heads, heads.n_kv_heads, heads.head_dim) == (32, 8, 64)
    assert made.vocab_size == 128256
    assert heads.qkv_blocks == (2048, 512, 512)
    assert len(made.ropes[0].inv_freq) == 32
    assert made.tied
    assert len(made.layers) == 16
    assert not (heads.qkv_bias or heads.output_bias or made.mlp.bias)


def test_parameters_in_the_order_of_computation() -> None:
    roles = [parameter.role for parameter in decoder_parameters(spec({"num_hidden_layers": 1}))]
    layer = ["input_norm", "mlp_norm", "qkv", "output", "gate_up", "down"]
    assert roles == ["embedding", *(f"layers.0.{name}" for name in layer), "final_norm"]
    untied = decoder_parameters(spec({"tie_word_embeddings": False}))
    assert untied[-1] == MatrixParameter("lm_head", (128256,), 2048)


def test_names_in_files() -> None:
    mlc, hf = (layer_names(ARCHITECTURES["llama"].names[kind], 16) for kind in ("mlc", "hf"))
    layer = "model.layers.15"
    assert mlc["layers.15.qkv"].names == (f"{layer}.self_attn.qkv_proj",)
    assert mlc["layers.15.gate_up"].names == (f"{layer}.mlp.gate_up_proj",)
    assert hf["layers.15.gate_up"].names == tuple(f"{layer}.mlp.{p}_proj" for p in ("gate", "up"))
    for names in (mlc, hf):
        assert names["embedding"].names == ("model.embed_tokens",)
        assert names["layers.15.down"].names == (f"{layer}.mlp.down_proj",)
        assert names["layers.15.mlp_norm"].names == (f"{layer}.post_attention_layernorm.weight",)
        assert names["final_norm"].names == ("model.norm.weight",)
        assert set(names) >= {parameter.role for parameter in decoder_parameters(spec())}


def test_untied_model_has_a_head() -> None:
    assert not spec({"tie_word_embeddings": False}).tied
    assert not spec({"tie_word_embeddings": None}).tied


def test_biases_that_the_configuration_asks_for() -> None:
    made = spec({"attention_bias": True, "mlp_bias": True})
    sizes = {p.role: p.size for p in decoder_parameters(made) if isinstance(p, VectorParameter)}
    assert sizes["layers.0.qkv.bias"] == 3072
    assert sizes["layers.0.output.bias"] == sizes["layers.0.down.bias"] == 2048
    assert sizes["layers.0.gate_up.bias"] == 2 * 8192


def test_heads_rotated_in_part() -> None:
    made = spec({"partial_rotary_factor": 0.5})
    assert made.heads.rotary_dim == 32
    assert made.ropes[0].inv_freq[8] == pytest.approx(500000**-0.5)
    nested = {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}
    assert spec(nested).heads.rotary_dim == 16


@pytest.mark.parametrize("head_dim", [0, None])
def test_head_dim_is_derived(head_dim: int | None) -> None:
    assert spec({"head_dim": head_dim}).heads.head_dim == 64


@pytest.mark.parametrize("n_kv_heads", [0, None])
def test_kv_heads_default_to_heads(n_kv_heads: int | None) -> None:
    assert spec({"num_key_value_heads": n_kv_heads}).heads.n_kv_heads == 32


def test_prefill_chunk_is_capped_unless_asked_for() -> None:
    assert spec().prefill_chunk_size == 256
    assert spec(prefill_chunk_size=64).prefill_chunk_size == 64
    assert spec(prefill_chunk_size=-1).prefill_chunk_size == 256
    assert spec(chat_opts={"prefill_chunk_size": 1024}).prefill_chunk_size == 1024
    assert spec(chat_opts={"context_window_size": 128}).prefill_chunk_size == 128


def test_mistral_with_its_window_off() -> None:
    assert spec(model_type="mistral", sliding_window_size=-1).layers[0].window is None


def test_mistral_with_hugging_face_s_window() -> None:
    """Every layer sees a part; a sequence ends where the context does."""
    made = spec({"sliding_window": 1024}, model_type="mistral")
    assert {layer.window for layer in made.layers} == {SlidingWindow(1024, 0, 1024 + 256 - 1)}
    assert made.context_window_size == 4096


SLIDING = {"context_window_size": -1, "sliding_window_size": 4096, "attention_sink_size": 4}


def test_sliding_window_and_sinks() -> None:
    made = spec({"sliding_window": 1024}, model_type="mistral", **SLIDING)
    assert {layer.window for layer in made.layers} == {SlidingWindow(4096, 4, 4092 + 256 - 1)}
    assert made.context_window_size == MAX_SLIDING_POSITIONS
    assert made.attention(made.layers[0]).slots == 4096 + 256 - 1


def test_cache_is_as_long_as_the_context() -> None:
    made = spec()
    assert made.layers[0].window is None
    assert made.attention(made.layers[0]).slots == made.context_window_size == 4096


def test_a_chunk_may_be_longer_than_the_window() -> None:
    small = {"sliding_window_size": 100, "attention_sink_size": 0}
    made = spec(model_type="mistral", **{**SLIDING, **small})
    assert made.prefill_chunk_size == 256
    assert made.attention(made.layers[0]).slots == 100 + 256 - 1


def test_unknown_architecture_lists_the_known() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"'mamba'.*llama, .*mistral"):
        spec(model_type="mamba")


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
        ({"hidden_act": "relu"}, r"hidden_act is 'relu'.*silu"),
        ({"partial_rotary_factor": 0.05}, r"factor is 0\.05, which rotates 3 values of a head"),
        ({"rope_scaling": {"rope_type": "mrope"}}, r"rope_type is 'mrope'.*llama3, yarn, longrope"),
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
