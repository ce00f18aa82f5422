"""The families Qwen 2 and 3: from MLC's configuration to spec and kernels."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import ModelFileFormatError
from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention_shape import QkNorm
from py_engine.kernels.tuning import Tuning
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.decoder_steps import decoder_steps
from py_engine.models.registry import ARCHITECTURES, decoder_spec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.parameters import layer_names
from tests.support.layouts import uniform_layouts

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


def shapes(made: DecoderSpec) -> dict[str, int]:
    """Return the elements of every vector, and the rows of every matrix, by role."""
    return {
        parameter.role: getattr(parameter, "rows", 0) or getattr(parameter, "size", 0)
        for parameter in decoder_parameters(made)
    }


def kernels(made: DecoderSpec, lanes: int | None) -> dict[str, KernelSpec]:
    layouts = uniform_layouts(decoder_parameters(made), "q4f16_1")
    steps = decoder_steps(made, layouts, 1 << 27, Tuning(lanes))
    return {kernel.label: kernel for kernel in steps.kernels}


def bound(kernels: dict[str, KernelSpec], role: str) -> list[str]:
    return [binding.name for binding in kernels[role].bindings]


def test_qwen_2_5_has_a_bias_and_no_norms_of_heads() -> None:
    made = spec("qwen2", QWEN2_5_0_5B)
    heads = made.heads
    assert (made.n_layers, heads.n_heads, heads.n_kv_heads, heads.head_dim) == (24, 14, 2, 64)
    assert made.tied
    assert made.ropes[0].inv_freq[16] == pytest.approx(1e-3)
    sizes = shapes(made)
    assert sizes["layers.23.qkv.bias"] == sizes["layers.0.qkv"] == 1152
    assert not [role for role in sizes if "q_norm" in role or "output.bias" in role]


def test_qwen_3_has_norms_of_heads_and_no_bias() -> None:
    made = spec("qwen3", QWEN3_0_6B)
    assert made.heads.qk_norm == QkNorm("head_rms", 1e-6)
    sizes = shapes(made)
    assert sizes["layers.0.qkv"] == 4096
    assert sizes["layers.27.q_norm"] == sizes["layers.27.k_norm"] == 128
    assert not [role for role in sizes if role.endswith(".bias")]


def test_qwen_3_may_have_biases_around_attention() -> None:
    sizes = shapes(spec("qwen3", QWEN3_0_6B, attention_bias=True))
    biases = [role for role in sizes if role.endswith(".bias")]
    assert len(biases) == 2 * 28
    assert sizes["layers.3.output.bias"] == 1024


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_names_in_files(family: str) -> None:
    mlc, hf = (layer_names(ARCHITECTURES[family].names[kind], 24) for kind in ("mlc", "hf"))
    attention = "model.layers.23.self_attn"
    assert mlc["layers.23.qkv"].names == (f"{attention}.c_attn",)
    assert mlc["layers.23.qkv.bias"].names == (f"{attention}.c_attn.bias",)
    assert hf["layers.23.qkv"].names == tuple(f"{attention}.{part}_proj" for part in "qkv")
    assert hf["layers.23.qkv.bias"].names[2] == f"{attention}.v_proj.bias"
    assert mlc["layers.23.output"] == hf["layers.23.output"]
    assert mlc["layers.23.q_norm"].names == (f"{attention}.q_norm.weight",)


def test_larger_models_have_a_head() -> None:
    assert spec("qwen2", QWEN2_5_0_5B, tie_word_embeddings=False).head == "lm_head"
    assert spec("qwen3", QWEN3_0_6B, tie_word_embeddings=None).head == "lm_head"


@pytest.mark.parametrize("lanes", [32, None])
def test_only_what_a_family_has_is_bound(lanes: int | None) -> None:
    llama = kernels(spec("llama", QWEN2_5_0_5B), lanes)
    qwen2 = kernels(spec("qwen2", QWEN2_5_0_5B), lanes)
    qwen3 = kernels(spec("qwen3", QWEN3_0_6B), lanes)
    assert set(llama) == set(qwen2) == set(qwen3)
    for label in ("qkv", "prefill qkv"):
        assert "bias" in bound(qwen2, label)
        assert "bias" not in bound(llama, label) + bound(qwen3, label)
    for label in ("attention", "prefill rope"):
        assert {"q_norm", "k_norm"} <= set(bound(qwen3, label))
        assert llama[label] == qwen2[label]
        assert not {"q_norm", "k_norm"} & set(bound(llama, label))
    # What every WebGPU adapter allows in one stage.
    assert max(len(kernel.bindings) for kernel in (*qwen2.values(), *qwen3.values())) <= 8


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_windows_of_some_layers(family: str) -> None:
    model = {**QWEN2_5_0_5B, "sliding_window": 1024}
    assert not any(layer.window for layer in spec(family, model).layers)
    on = {**model, "use_sliding_window": True}
    assert not any(layer.window for layer in spec(family, on).layers)
    some = spec(family, on, max_window_layers=20).layers
    assert [layer.window is not None for layer in some] == [False] * 20 + [True] * 4
    assert some[23].window is not None
    assert (some[23].window.size, some[23].window.sinks) == (1024, 0)
    types = ["sliding_attention", "full_attention"] * 12
    listed = spec(family, on, layer_types=types).layers
    assert [layer.window is not None for layer in listed] == [True, False] * 12
    # A window that the context cannot fill makes no difference.
    assert not any(layer.window for layer in spec(family, on, sliding_window=4096).layers)
    with pytest.raises(ModelFileFormatError, match=r"layer_types .* one string for each of 24"):
        spec(family, on, layer_types=types[:-1])
