"""Gemma 1 to 3: from the configurations of MLC's and Hugging Face's files to specs and names."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.errors import ModelFileFormatError, UnsupportedModelConfigError
from py_engine.kernels.attention_shape import QkNorm
from tests.support.specs import dispatches_per_layer, names_of, sizes_of, spec_of

GEMMA_2B = {
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "attention_bias": False,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "num_hidden_layers": 18,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "position_embedding_base": 10000,
}
GEMMA2_2B = {
    **GEMMA_2B,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_key_value_heads": 4,
    "num_hidden_layers": 26,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "query_pre_attn_scalar": 224,
    "sliding_window": 1024,
}
GEMMA3_1B_TEXT = {
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_hidden_layers": 26,
    "attention_bias": False,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
}
GEMMA3_1B_HF = {
    **GEMMA3_1B_TEXT,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "rope_theta": 1000000,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
}
GEMMA3_1B_MLC = {
    "text_config": {
        **GEMMA3_1B_TEXT,
        "position_embedding_base": 1000000,
        "rope_scaling": 0,
        "sliding_window_size": 512,
        "context_window_size": 8192,
        "kwargs": {"rope_local_base_freq": 10000, "sliding_window_pattern": 6},
    },
    "is_text_model": True,
}
# Hugging Face leaves out what is as in transformers' classes.
GEMMA3_4B_HF = {
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
}

GEMMA2_2B_HF = {
    **{name: value for name, value in GEMMA2_2B.items() if name != "position_embedding_base"},
    "hidden_act": "gelu_pytorch_tanh",
    "cache_implementation": "hybrid",
    "max_position_embeddings": 8192,
    "rope_theta": 10000.0,
}


@pytest.mark.parametrize(
    ("family", "mlc", "hf"),
    [
        ("gemma2", GEMMA2_2B, GEMMA2_2B_HF),
        ("gemma3_text", GEMMA3_1B_MLC, GEMMA3_1B_HF),
    ],
)
def test_mlcs_files_and_hugging_faces_say_the_same(
    family: str, mlc: dict[str, Any], hf: dict[str, Any]
) -> None:
    assert spec_of(family, mlc) == spec_of(family, hf)


def test_gemma_scales_its_embeddings_and_has_a_tied_head() -> None:
    made = spec_of("gemma", GEMMA_2B)
    assert made.embedding_scale == 2048**0.5
    assert made.tied
    assert made.mlp.activation == "gelu_tanh"
    assert (made.heads.n_kv_heads, made.heads.head_dim) == (1, 256)
    assert dispatches_per_layer(made) == 5


@pytest.mark.parametrize(
    "fields", [{"hidden_act": "gelu", "hidden_activation": None}, {"hidden_activation": None}]
)
def test_gemmas_gelu_is_the_approximation_under_its_old_name_too(fields: dict[str, Any]) -> None:
    assert spec_of("gemma", GEMMA_2B, **fields).mlp.activation == "gelu_tanh"


def test_gemma_refuses_an_activation_that_is_not_known() -> None:
    with pytest.raises(UnsupportedModelConfigError, match=r"hidden_activation is 'relu2'"):
        spec_of("gemma", GEMMA_2B, hidden_activation="relu2")


def test_gemma_2_has_caps_and_a_window_in_every_other_layer() -> None:
    made = spec_of("gemma2", GEMMA2_2B)
    assert (made.heads.soft_cap, made.logit_soft_cap) == (50.0, 30.0)
    assert made.heads.scale == 224**-0.5
    windows = [layer.window.size if layer.window else None for layer in made.layers]
    assert windows == [1024, None] * 13
    assert made.context_window_size == 4096
    assert dispatches_per_layer(made) == 7


def test_gemma_2_without_caps_says_so_with_null() -> None:
    silent = {name: value for name, value in GEMMA2_2B.items() if "softcapping" not in name}
    made = spec_of("gemma2", silent)
    assert (made.heads.soft_cap, made.logit_soft_cap) == (50.0, 30.0)
    none = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    made = spec_of("gemma2", GEMMA2_2B, **none)
    assert (made.heads.soft_cap, made.logit_soft_cap) == (None, None)


@pytest.mark.parametrize("model_config", [GEMMA3_1B_HF, GEMMA3_1B_MLC])
def test_gemma_3_rotates_local_layers_by_a_base_of_their_own(model_config: dict[str, Any]) -> None:
    made = spec_of("gemma3_text", model_config)
    local = [index for index, layer in enumerate(made.layers) if layer.rope == 1]
    assert local == [index for index in range(26) if index % 6 != 5]
    assert all((layer.window is not None) == (layer.rope == 1) for layer in made.layers)
    assert {layer.window.size for layer in made.layers if layer.window} == {512}
    assert made.ropes[0].inv_freq[64] == pytest.approx(1e-3)
    assert made.ropes[1].inv_freq[64] == pytest.approx(1e-2)
    assert made.heads.qk_norm == QkNorm("head_rms", 1e-6)
    assert made.logit_soft_cap is made.heads.soft_cap is None
    assert dispatches_per_layer(made) == 7


def test_a_local_layer_keeps_its_base_where_the_context_fits_into_its_window() -> None:
    made = spec_of("gemma3_text", GEMMA3_1B_HF, context=512)
    assert {layer.window for layer in made.layers} == {None}
    assert [layer.rope for layer in made.layers[:6]] == [1, 1, 1, 1, 1, 0]


def test_gemma_3_of_a_multimodal_checkpoint() -> None:
    made = spec_of("gemma3", GEMMA3_4B_HF)
    assert (made.heads.n_heads, made.heads.n_kv_heads, made.heads.head_dim) == (8, 4, 256)
    assert made.ropes[0].inv_freq[64] == pytest.approx(1e-3 / 8)
    assert made.ropes[1].inv_freq[64] == pytest.approx(1e-2)


def test_an_embedding_model_that_reads_both_ways_is_refused() -> None:
    with pytest.raises(UnsupportedModelConfigError, match="use_bidirectional_attention is True"):
        spec_of("gemma3_text", GEMMA3_1B_HF, use_bidirectional_attention=True)


def test_layer_types_must_be_as_many_as_layers() -> None:
    with pytest.raises(ModelFileFormatError, match="layer_types"):
        spec_of("gemma3_text", GEMMA3_1B_HF, layer_types=["full_attention"])


def test_hugging_faces_norms_lack_the_one_that_mlcs_have() -> None:
    made = spec_of("gemma3_text", GEMMA3_1B_HF)
    mlc, hf = (names_of("gemma3_text", kind, made) for kind in ("mlc", "hf"))
    norms = [role for role in sizes_of(made) if role.endswith("norm")]
    assert len(norms) == 26 * 6 + 1
    assert {hf[role].transform for role in norms} == {"add_one"}
    assert {mlc[role].transform for role in norms} == {"none"}
    assert {hf[role].transform for role in sizes_of(made) if role not in norms} == {"none"}


def test_names_in_files() -> None:
    made = spec_of("gemma3_text", GEMMA3_1B_HF)
    mlc, hf = (names_of("gemma3_text", kind, made) for kind in ("mlc", "hf"))
    layer = "model.layers.25"
    for table, prefix in ((mlc, "language_model."), (hf, "")):
        assert table["embedding"].names == (f"{prefix}model.embed_tokens",)
        assert table["layers.25.qkv"].names == tuple(
            f"{prefix}{layer}.self_attn.{part}_proj" for part in "qkv"
        )
        for role, name in (
            ("input_norm", "input_layernorm"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("mlp_norm", "pre_feedforward_layernorm"),
            ("post_mlp_norm", "post_feedforward_layernorm"),
            ("q_norm", "self_attn.q_norm"),
        ):
            assert table[f"layers.25.{role}"].names == (f"{prefix}{layer}.{name}.weight",)
    assert mlc["layers.0.gate_up"].names == ("language_model.model.layers.0.mlp.gate_up_proj",)
    gemma2 = names_of("gemma2", "mlc", spec_of("gemma2", GEMMA2_2B))
    assert gemma2["layers.0.qkv"].names == ("model.layers.0.self_attn.qkv_proj",)
