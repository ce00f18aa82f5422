"""The families Qwen 2 and 3: from MLC's configuration to spec and kernels."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import UnsupportedModelConfigError
from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention_shape import QkNorm
from py_engine.models.decoder import decoder_kernels
from py_engine.models.registry import decoder_spec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.plan import weight_slots

QWEN2_5_0_5B = {
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "head_dim": 64,
}
QWEN3_0_6B = {
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "attention_bias": False,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "head_dim": 128,
}


def spec(family: str, model: dict[str, Any], **changes: Any) -> DecoderSpec:
    data = {
        "model_type": family,
        "quantization": "q4f16_1",
        "vocab_size": 151936,
        "context_window_size": 4096,
        "sliding_window_size": -1,
        "prefill_chunk_size": 2048,
        "model_config": {**model, **changes},
    }
    return decoder_spec(ChatConfig.from_json(data))


def bound(kernels: dict[str, KernelSpec], role: str) -> list[str]:
    return [binding.name for binding in kernels[role].bindings]


def test_qwen_2_5_has_a_bias_and_no_norms_of_heads() -> None:
    made = spec("qwen2", QWEN2_5_0_5B)
    assert (made.n_layers, made.n_heads, made.n_kv_heads, made.head_dim) == (24, 14, 2, 64)
    assert made.lm_head is None
    assert made.rope_inv_freq[16] == pytest.approx(1e-3)
    assert made.layers[23].qkv == "model.layers.23.self_attn.c_attn"
    assert made.layers[23].output == "model.layers.23.self_attn.o_proj"
    slots = {slot.name: slot.shape for slot in weight_slots(made)}
    assert slots["model.layers.23.self_attn.c_attn.bias"] == (1152,)
    assert slots["model.layers.0.self_attn.c_attn.q_weight"] == (1152, 112)
    assert not [name for name in slots if "q_norm" in name or "qkv_proj" in name]


def test_qwen_3_has_norms_of_heads_and_no_bias() -> None:
    made = spec("qwen3", QWEN3_0_6B)
    assert made.qkv_size == 4096
    assert made.attention.qk_norm == QkNorm("head_rms", 1e-6)
    slots = {slot.name: slot.shape for slot in weight_slots(made)}
    for norm in ("q_norm", "k_norm"):
        assert slots[f"model.layers.27.self_attn.{norm}.weight"] == (128,)
    assert slots["model.layers.0.self_attn.o_proj.q_weight"] == (1024, 256)
    assert not [name for name in slots if name.endswith(".bias")]


def test_larger_models_have_a_head() -> None:
    assert spec("qwen2", QWEN2_5_0_5B, tie_word_embeddings=False).lm_head == "lm_head"
    assert spec("qwen3", QWEN3_0_6B, tie_word_embeddings=None).lm_head == "lm_head"


@pytest.mark.parametrize("lanes", [32, None])
def test_only_what_a_family_has_is_bound(lanes: int | None) -> None:
    llama = decoder_kernels(spec("llama", QWEN2_5_0_5B), lanes)
    qwen2 = decoder_kernels(spec("qwen2", QWEN2_5_0_5B), lanes)
    qwen3 = decoder_kernels(spec("qwen3", QWEN3_0_6B), lanes)
    assert set(llama) == set(qwen2) == set(qwen3)
    for role in ("qkv", "prefill qkv"):
        assert "bias" in bound(qwen2, role)
        assert "bias" not in bound(llama, role) + bound(qwen3, role)
    for role in ("attention", "prefill rope"):
        assert {"q_norm", "k_norm"} <= set(bound(qwen3, role))
        assert llama[role] == qwen2[role]
        assert not {"q_norm", "k_norm"} & set(bound(llama, role))
    # What every WebGPU adapter allows in one stage.
    assert max(len(kernel.bindings) for kernel in (*qwen2.values(), *qwen3.values())) <= 8


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_other_biases_are_refused(family: str) -> None:
    with pytest.raises(UnsupportedModelConfigError, match=r"attention_bias is true, but such"):
        spec(family, QWEN3_0_6B, attention_bias=True)
