"""Phi 3, Phi 4 mini, OLMo 2 and Ministral 3: from real configurations to specs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import UnsupportedModelConfigError
from py_engine.kernels.attention_shape import QkNorm, QueryScaling
from py_engine.models.registry import decoder_spec
from tests.support.specs import names_of, sizes_of, spec_of


def longrope(pairs: int) -> dict[str, Any]:
    return {
        "type": "longrope",
        "short_factor": [1.0 + i / 100 for i in range(pairs)],
        "long_factor": [1.0 + i for i in range(pairs)],
    }


PHI_3_5_MINI = {
    "hidden_size": 3072,
    "vocab_size": 32064,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 8192,
    "rms_norm_eps": 1e-5,
    "num_key_value_heads": 32,
    "max_position_embeddings": 131072,
    "position_embedding_base": 10000.0,
    "rope_scaling": {
        **longrope(48),
        "rope_type": "longrope",
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
    },
    "original_max_position_embeddings": 4096,
    "context_window_size": 131072,
    "head_dim": 96,
}
"""As MLC writes it."""

PHI_4_MINI = {
    "hidden_size": 3072,
    "vocab_size": 200064,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "partial_rotary_factor": 0.75,
    "rope_theta": 10000.0,
    "rope_scaling": longrope(48),
    "sliding_window": 262144,
    "tie_word_embeddings": True,
    "attention_bias": False,
}
"""As Hugging Face has it, with a window longer than any context."""

OLMO_2_1B = {
    "hidden_size": 2048,
    "vocab_size": 100352,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000,
    "max_position_embeddings": 4096,
    "attention_bias": False,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
MINISTRAL_3_3B = {
    "hidden_size": 3072,
    "vocab_size": 131072,
    "num_hidden_layers": 26,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9216,
    "rms_norm_eps": 1e-5,
    "position_embedding_base": 1000000.0,
    "rope_parameters": {
        "type": "yarn",
        "factor": 16.0,
        "original_max_position_embeddings": 16384,
        "max_position_embeddings": 262144,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale_all_dim": 1.0,
        "mscale": 1.0,
        "llama_4_scaling_beta": 0.1,
    },
    "context_window_size": 262144,
    "tie_word_embeddings": True,
}
"""As MLC writes it: the base of RoPE stands by itself."""


def test_phi_3_5_has_short_factors_up_to_its_original_context() -> None:
    made = spec_of("phi3", PHI_3_5_MINI)
    rope = made.ropes[0]
    assert len(rope.inv_freq) == 48
    assert rope.inv_freq[0] == pytest.approx(1.0)
    assert rope.inv_freq[24] == pytest.approx(0.01 / 1.24)
    assert rope.factor == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))
    assert made.long_rope is None
    assert not made.tied
    assert made.heads.head_dim == 96


def test_phi_3_5_has_long_factors_beyond_it() -> None:
    long = spec_of("phi3", PHI_3_5_MINI, context=8192).long_rope
    assert long is not None
    assert long.limit == 4096
    assert long.inv_freq[24] == pytest.approx(0.01 / 25)


def test_a_sliding_window_within_the_original_context_stays_short() -> None:
    data = {
        "model_type": "phi3",
        "quantization": "q4f16_1",
        "context_window_size": -1,
        "sliding_window_size": 4096,
        "attention_sink_size": 4,
        "model_config": PHI_3_5_MINI,
    }
    assert decoder_spec(ChatConfig.from_json(data)).long_rope is None


def test_phi_3_mini_4k_is_not_scaled() -> None:
    made = spec_of("phi3", PHI_3_5_MINI, rope_scaling=None, max_position_embeddings=4096)
    assert made.ropes[0].inv_freq[24] == pytest.approx(0.01)
    assert made.ropes[0].factor == 1.0


def test_phi_4_mini_rotates_three_quarters_of_a_head_and_is_tied() -> None:
    made = spec_of("phi3", PHI_4_MINI, context=131072)
    assert (made.heads.head_dim, made.heads.rotary_dim) == (128, 96)
    assert made.ropes[0].inv_freq[1] == pytest.approx(10000 ** (-2 / 96) / 1.01)
    assert made.tied
    assert not any(layer.window for layer in made.layers)


def test_phi_3_s_files_fuse_in_both_kinds() -> None:
    made = spec_of("phi3", PHI_3_5_MINI)
    mlc, hf = names_of("phi3", "mlc", made), names_of("phi3", "hf", made)
    assert mlc["layers.31.qkv"].names == ("transformer.h.31.mixer.qkv_proj",)
    assert mlc["layers.31.mlp_norm"].names == ("transformer.h.31.post_attention_layernorm.weight",)
    assert hf["layers.31.qkv"].names == ("model.layers.31.self_attn.qkv_proj",)
    assert hf["layers.31.gate_up"].names == ("model.layers.31.mlp.gate_up_proj",)
    assert set(sizes_of(made)) <= set(mlc) & set(hf)


def test_olmo_2_has_norms_of_branches_and_of_whole_queries_and_keys() -> None:
    made = spec_of("olmo2", OLMO_2_1B)
    assert made.block.norms == ("post_attention_norm", "post_mlp_norm")
    assert made.heads.qk_norm == QkNorm("full_rms", 1e-6)
    sizes = sizes_of(made)
    assert sizes["layers.15.q_norm"] == sizes["layers.15.k_norm"] == 2048
    assert "layers.0.input_norm" not in sizes
    names = names_of("olmo2", "mlc", made)
    layer = "model.layers.15"
    assert names["layers.15.post_attention_norm"].names == (
        f"{layer}.post_attention_layernorm.weight",
    )
    assert names["layers.15.post_mlp_norm"].names == (f"{layer}.post_feedforward_layernorm.weight",)


def test_ministral_3_scales_frequencies_and_queries() -> None:
    made = spec_of("ministral3", MINISTRAL_3_3B)
    assert made.heads.query_scaling == QueryScaling(0.1, 16384)
    rope = made.ropes[0]
    assert rope.factor == 1.0
    plain = [1e6 ** (-2 * i / 128) for i in range(64)]
    assert rope.inv_freq[0] == plain[0]
    assert rope.inv_freq[63] == pytest.approx(plain[63] / 16)
    assert all(plain[i] / 16 <= rope.inv_freq[i] <= plain[i] for i in range(64))
    assert (made.n_layers, made.heads.width, made.tied) == (26, 4096, True)


def test_yarn_s_attention_factor() -> None:
    rope = {**MINISTRAL_3_3B["rope_parameters"], "mscale": None}  # type: ignore[dict-item]
    made = spec_of("ministral3", MINISTRAL_3_3B, rope_parameters=rope)
    assert made.ropes[0].factor == pytest.approx(0.1 * math.log(16) + 1)
    given = spec_of(
        "ministral3", MINISTRAL_3_3B, rope_parameters={**rope, "attention_factor": 1.25}
    )
    assert given.ropes[0].factor == 1.25


def test_ministral_3_without_growth() -> None:
    rope = {**MINISTRAL_3_3B["rope_parameters"], "llama_4_scaling_beta": None}  # type: ignore[dict-item]
    assert spec_of("ministral3", MINISTRAL_3_3B, rope_parameters=rope).heads.query_scaling is None


def test_dynamic_scaling_is_refused_past_the_model_s_length() -> None:
    model = {**OLMO_2_1B, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    assert spec_of("olmo2", model).ropes[0].factor == 1.0
    with pytest.raises(UnsupportedModelConfigError, match="context_window_size to at most 4096"):
        spec_of("olmo2", model, context=8192)
