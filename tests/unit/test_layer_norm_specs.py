"""StableLM, GPT-2, Phi and GPT-NeoX: from the configurations of files to specs and names."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.errors import UnsupportedModelConfigError
from py_engine.kernels.attention_shape import QkNorm
from py_engine.kernels.norm import Norm
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.registry import ARCHITECTURES
from py_engine.weights.parameters import VectorParameter, fitting_names, vector_tensors
from tests.support.specs import dispatches_per_layer, names_of, sizes_of, spec_of

STABLELM_2_1_6B = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_hidden_layers": 24,
    "num_key_value_heads": 32,
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.25,
    "rope_theta": 10000,
    "use_qkv_bias": True,
}
GPT2_MEDIUM = {"n_embd": 1024, "n_layer": 24, "n_head": 16, "layer_norm_epsilon": 1e-5}
PHI_1_5 = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 24,
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.5,
    "num_key_value_heads": None,
    "position_embedding_base": 10000,
    "hidden_act": "gelu_new",
    "tie_word_embeddings": False,
}
PHI_2_MSFT = {
    "n_embd": 2560,
    "n_layer": 32,
    "n_inner": 0,
    "n_head": 32,
    "n_head_kv": 0,
    "rotary_dim": 32,
    "layer_norm_epsilon": 1e-5,
    "position_embedding_base": 10000,
}
REDPAJAMA_3B = {
    "use_parallel_residual": False,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "layer_norm_eps": 1e-5,
    "rotary_pct": 1.0,
    "position_embedding_base": 10000,
}
PYTHIA_410M = {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "rotary_emb_base": 20000,
    "rotary_pct": 0.25,
    "use_parallel_residual": True,
}

STABLELM_2_1_6B_HF = {
    **STABLELM_2_1_6B,
    "hidden_act": "silu",
    "hidden_dropout": 0.0,
    "max_position_embeddings": 4096,
    "qk_layernorm": False,
    "use_parallel_residual": False,
    "tie_word_embeddings": False,
}
GPT2_MEDIUM_HF = {**GPT2_MEDIUM, "n_positions": 1024, "activation_function": "gelu_new"}
GPT2_MEDIUM_MLC = {
    **GPT2_MEDIUM,
    "n_inner": 4096,
    "context_window_size": 1024,
    "scale_attn_by_inverse_layer_idx": False,
    "head_dim": 64,
}
PHI_2_HF = {
    **PHI_1_5,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.4,
    "rope_theta": 10000.0,
}
REDPAJAMA_3B_HF = {
    "hidden_act": "gelu",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "tie_word_embeddings": False,
    "use_parallel_residual": False,
}


@pytest.mark.parametrize(
    ("mlc", "hf"),
    [
        (("stablelm", STABLELM_2_1_6B), ("stablelm", STABLELM_2_1_6B_HF)),
        (("gpt2", GPT2_MEDIUM_MLC), ("gpt2", GPT2_MEDIUM_HF)),
        (("phi-msft", PHI_2_MSFT), ("phi", PHI_2_HF)),
        (("gpt_neox", REDPAJAMA_3B), ("gpt_neox", REDPAJAMA_3B_HF)),
    ],
    ids=lambda pair: pair[0],
)
def test_mlcs_files_and_hugging_faces_say_the_same(
    mlc: tuple[str, dict[str, Any]], hf: tuple[str, dict[str, Any]]
) -> None:
    assert spec_of(*mlc, context=1024) == spec_of(*hf, context=1024)


def test_stablelm_has_layer_norms_and_a_bias_of_qkv() -> None:
    made = spec_of("stablelm", STABLELM_2_1_6B)
    assert made.norm == Norm("layer", 1e-5, bias=True)
    assert made.heads.rotary_dim == 16
    sizes = sizes_of(made)
    assert sizes["layers.0.qkv.bias"] == 3 * 2048
    assert {role for role in sizes if role.endswith("norm.bias")} == {
        "final_norm.bias",
        *(f"layers.{i}.{norm}.bias" for i in range(24) for norm in ("input_norm", "mlp_norm")),
    }
    assert "layers.0.output.bias" not in sizes
    assert dispatches_per_layer(made) == 5
    silent = {name: value for name, value in STABLELM_2_1_6B.items() if "bias" not in name}
    assert "layers.0.qkv.bias" not in sizes_of(spec_of("stablelm", silent))


def test_a_parallel_stablelm_has_one_norm_a_layer_and_norms_of_each_head() -> None:
    changes = {"qk_layernorm": True, "use_parallel_residual": True, "num_key_value_heads": 8}
    made = spec_of("stablelm", STABLELM_2_1_6B, **changes)
    assert made.heads.qk_norm == QkNorm("head_layer", 1e-5)
    sizes = sizes_of(made)
    assert "layers.0.mlp_norm" not in sizes
    assert (sizes["layers.0.q_norm"], sizes["layers.0.k_norm"]) == (2048, 512)
    parameters = {parameter.role: parameter for parameter in decoder_parameters(made)}
    keys = parameters["layers.3.k_norm"]
    assert isinstance(keys, VectorParameter)
    attention = "model.layers.3.self_attn"
    stored = names_of("stablelm", "hf", made)["layers.3.k_norm"]
    assert vector_tensors(keys, stored) == tuple(
        f"{attention}.k_layernorm.norms.{head}.weight" for head in range(8)
    )
    stored = names_of("stablelm", "mlc", made)["layers.3.k_norm"]
    assert vector_tensors(keys, stored) == (f"{attention}.k_layernorm.weight",)


def test_gpt2_has_learned_positions_and_no_rotation() -> None:
    made = spec_of("gpt2", GPT2_MEDIUM, context=1024, n_positions=1024)
    assert made.n_positions == 1024
    assert made.heads.rotary_dim == 0
    assert (made.mlp.intermediate_size, made.mlp.gated, made.mlp.activation) == (
        *(4096, False),
        "gelu_tanh",
    )
    assert made.tied
    sizes = sizes_of(made)
    assert sizes["positions"] == 1024
    assert {role.removeprefix("layers.5.") for role in sizes if role.startswith("layers.5.")} == {
        *("input_norm", "input_norm.bias", "mlp_norm", "mlp_norm.bias"),
        *("qkv", "qkv.bias", "output", "output.bias", "up", "up.bias", "down", "down.bias"),
    }
    assert dispatches_per_layer(made) == 5


def test_gpt2_of_mlc_calls_its_positions_a_context_window() -> None:
    made = spec_of("gpt2", GPT2_MEDIUM, context=512, context_window_size=1024, n_inner=-1)
    assert (made.n_positions, made.context_window_size) == (1024, 512)
    assert made.mlp.intermediate_size == 4096


def test_gpt2_has_no_position_past_those_it_learned() -> None:
    with pytest.raises(UnsupportedModelConfigError, match=r"n_positions is 1024.*at most 1024"):
        spec_of("gpt2", GPT2_MEDIUM, context=1025, n_positions=1024)


def test_gpt2_that_reads_an_encoder_is_refused() -> None:
    fields: dict[str, Any] = {"n_positions": 1024, "add_cross_attention": True}
    with pytest.raises(UnsupportedModelConfigError, match="add_cross_attention is True"):
        spec_of("gpt2", GPT2_MEDIUM, context=1024, **fields)


def test_the_scale_of_gpt2s_scores_may_fall_with_the_layer() -> None:
    fields: dict[str, Any] = {"n_positions": 1024, "scale_attn_by_inverse_layer_idx": True}
    made = spec_of("gpt2", GPT2_MEDIUM, context=1024, **fields)
    scales = [made.attention(layer).scale for layer in made.layers[:3]]
    assert scales == [1 / 8, 1 / 16, 1 / 24]
    made = spec_of("gpt2", GPT2_MEDIUM, context=1024, n_positions=1024, scale_attn_weights=False)
    assert {made.attention(layer).scale for layer in made.layers} == {1.0}


def test_phi_runs_attention_and_mlp_side_by_side() -> None:
    made = spec_of("phi", PHI_1_5, context=2048)
    assert made.block.parallel
    assert made.block.norms == ("input_norm",)
    assert made.lm_head_bias
    assert (made.heads.n_kv_heads, made.heads.rotary_dim) == (32, 32)
    assert sizes_of(made)["lm_head.bias"] == 50000
    assert dispatches_per_layer(made) == 5


def test_phi_msft_is_phi_with_other_names_of_fields() -> None:
    made = spec_of("phi-msft", PHI_2_MSFT, context=2048)
    assert (made.heads.n_heads, made.heads.n_kv_heads, made.heads.head_dim) == (32, 32, 80)
    assert (made.heads.rotary_dim, len(made.ropes[0].inv_freq)) == (32, 16)
    assert (made.n_layers, made.mlp.intermediate_size) == (32, 10240)
    assert made.norm.eps == 1e-5


def test_phi_with_norms_of_heads_is_refused() -> None:
    with pytest.raises(UnsupportedModelConfigError, match="qk_layernorm is True"):
        spec_of("phi", PHI_1_5, qk_layernorm=True)


def test_gpt_neox_is_parallel_or_not() -> None:
    made = spec_of("gpt_neox", REDPAJAMA_3B, context=2048)
    assert not made.block.parallel
    assert made.heads.rotary_dim == 80
    assert made.mlp.activation == "gelu"
    assert not made.tied
    assert dispatches_per_layer(made) == 5
    made = spec_of("gpt_neox", PYTHIA_410M, context=2048)
    assert made.block.parallel
    assert made.block.norms == ("input_norm", "mlp_norm")
    assert made.heads.rotary_dim == 16
    assert made.ropes[0].inv_freq[4] == pytest.approx(20000**-0.5)
    assert dispatches_per_layer(made) == 5


def test_names_of_gpt2() -> None:
    made = spec_of("gpt2", GPT2_MEDIUM, context=1024, n_positions=1024)
    mlc, hf = (names_of("gpt2", kind, made) for kind in ("mlc", "hf"))
    for role, name in (("qkv", "attn.c_attn"), ("down", "mlp.c_proj")):
        assert mlc[f"layers.1.{role}"].names == hf[f"layers.1.{role}"].names
        assert hf[f"layers.1.{role}"].names == (f"transformer.h.1.{name}",)
        assert hf[f"layers.1.{role}"].transform == "transpose"
        assert hf[f"layers.1.{role}.bias"].transform == "none"
        assert mlc[f"layers.1.{role}"].transform == "none"
    old = fitting_names(hf, ARCHITECTURES["gpt2"].spellings, {"h.0.ln_1.weight"})
    assert old["positions"].names == ("wpe",)
    assert old["layers.1.qkv.bias"].names == ("h.1.attn.c_attn.bias",)


def test_names_of_phi() -> None:
    made = spec_of("phi", PHI_1_5, context=2048)
    mlc, hf = (names_of("phi", kind, made) for kind in ("mlc", "hf"))
    msft = names_of("phi-msft", "hf", made)
    assert mlc["embedding"].names == ("transformer.embd",)
    assert msft["embedding"].names == ("transformer.embd.wte",)
    assert mlc["layers.7.qkv"] == msft["layers.7.qkv"]
    assert mlc["layers.7.qkv"].names == ("transformer.h.7.mixer.Wqkv",)
    assert mlc["final_norm.bias"].names == ("lm_head.ln.bias",)
    assert mlc["lm_head.bias"].names == ("lm_head.linear.bias",)
    assert hf["layers.7.output.bias"].names == ("model.layers.7.self_attn.dense.bias",)


def test_names_of_gpt_neox() -> None:
    made = spec_of("gpt_neox", PYTHIA_410M, context=2048)
    mlc, hf = (names_of("gpt_neox", kind, made) for kind in ("mlc", "hf"))
    assert mlc["lm_head"].names == hf["lm_head"].names == ("embed_out",)
    for role in ("layers.2.qkv", "layers.2.qkv.bias"):
        assert mlc[role].names == hf[role].names
        assert (mlc[role].transform, hf[role].transform) == ("none", "interleaved_heads")
    interleaved = {role for role, stored in hf.items() if stored.transform != "none"}
    assert interleaved == {f"layers.{i}.qkv{end}" for i in range(24) for end in ("", ".bias")}
