"""Qwen 3.5: from configurations of MLC and of Hugging Face to spec, parameters and kernels."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.errors import LimitSupportError, UnsupportedModelConfigError
from py_engine.gpu.types import Limits
from py_engine.kernels.attention_shape import QkNorm
from py_engine.kernels.delta import DeltaShape
from py_engine.kernels.tuning import PLAIN, Tuning
from py_engine.models.attention_limits import require_attention_fits
from py_engine.models.decoder_memory import working_sizes
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.decoder_steps import decoder_steps
from py_engine.models.delta_states import state_sizes
from py_engine.models.spec import DecoderSpec
from tests.support.layouts import uniform_layouts
from tests.support.specs import dispatches_per_layer, names_of, sizes_of, spec_of

TEXT_OF_4B = {
    "hidden_size": 2560,
    "intermediate_size": 9216,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "attn_output_gate": True,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
HF_4B = {
    **TEXT_OF_4B,
    "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 8,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
        "mrope_section": [11, 11, 10],
        "mrope_interleaved": True,
    },
}
MLC_4B = {
    **TEXT_OF_4B,
    "full_attention_interval": 4,
    "partial_rotary_factor": 0.25,
    "rope_theta": 10000000,
    "kwargs": {"eos_token_id": 248044, "mtp_num_hidden_layers": 1},
}


def of_4b(**changes: Any) -> DecoderSpec:
    return spec_of("qwen3_5_text", HF_4B, **changes)


def test_the_4b_model() -> None:
    made = of_4b()
    assert made.delta == DeltaShape(16, 32, 128, 128, 4, 1e-6)
    assert [i for i, layer in enumerate(made.layers) if layer.kind == "attention"] == [
        *range(3, 32, 4)
    ]
    assert made.heads.gated
    assert made.heads.qk_norm == QkNorm("head_rms", 1e-6)
    assert len(made.ropes[0].inv_freq) == 32
    assert made.ropes[0].inv_freq[16] == pytest.approx(10000000**-0.5)
    sizes = sizes_of(made)
    assert sizes["layers.3.qkv"] == (2 * 16 + 4 + 4) * 256
    assert sizes["layers.0.delta.input"] == 8192 + 4096 + 32 + 32
    assert sizes["layers.0.delta.conv"] == 4 * 8192
    assert sizes["layers.30.delta.gates"] == 64
    assert "layers.0.qkv" not in sizes
    assert "layers.3.delta.input" not in sizes


def test_mlc_says_the_same_and_defaults_are_those_of_the_family() -> None:
    assert spec_of("qwen3_5", MLC_4B) == of_4b()
    nested = {"text_config": {**HF_4B, "model_type": "qwen3_5_text"}, "vision_config": {}}
    assert spec_of("qwen3_5", nested) == of_4b()
    named = {"head_dim", "attn_output_gate", *(name for name in HF_4B if "linear_" in name)}
    short = {name: value for name, value in HF_4B.items() if name not in named}
    del short["layer_types"]
    assert spec_of("qwen3_5", short) == of_4b()
    rope = {"rope_theta": 10000000, "rope_type": "default"}
    assert of_4b(rope_parameters=rope) == of_4b()


def test_five_dispatches_for_layers_of_both_kinds() -> None:
    made = of_4b()
    assert dispatches_per_layer(made) == 5
    layouts = uniform_layouts(decoder_parameters(made), "q4f16_1")
    steps = decoder_steps(made, layouts, 1 << 27, Tuning(32))
    labels = [step.kernel.label for step in steps.next_logits.of_any[1:11]]
    assert labels == ["input", "delta", "output", "gate_up", "down"] * 2
    # One product for the output of both kinds, whose shapes are the same here.
    assert steps.next_logits.of_any[3].kernel is steps.next_logits.of_any[18].kernel
    assert max(len(kernel.bindings) for kernel in steps.kernels) <= 8
    assert len(steps.caches) == 8


def test_states_do_not_depend_on_the_context_and_have_a_copy() -> None:
    a_layer = 4 * 32 * (128 * 128 + 3 * 3 * 128)
    for context in (1024, 65536):
        made = spec_of("qwen3_5", HF_4B, context=context)
        assert sum(state_sizes(made).values()) == 2 * 24 * a_layer
        steps = decoder_steps(
            made, uniform_layouts(decoder_parameters(made), "q4f16_1"), 1 << 27, PLAIN
        )
        assert state_sizes(made).items() <= working_sizes(made, steps).items()


def test_names_in_files() -> None:
    mlc, hf = (names_of("qwen3_5", kind, of_4b()) for kind in ("mlc", "hf"))
    module = "model.layers.0.linear_attn"
    projections = tuple(f"{module}.in_proj_{part}" for part in ("qkv", "z", "b", "a"))
    assert mlc["layers.0.delta.input"].names == hf["layers.0.delta.input"].names == projections
    assert mlc["layers.0.delta.conv"].names == (f"{module}.conv1d_weight",)
    assert hf["layers.0.delta.conv"].names == (f"{module}.conv1d.weight",)
    assert mlc["layers.0.delta.gates"].names == (f"{module}.A_log", f"{module}.dt_bias")
    assert mlc["layers.3.qkv"].names == ("model.layers.3.self_attn.c_attn",)
    for role in ("layers.0.input_norm", "layers.0.mlp_norm", "layers.3.q_norm", "final_norm"):
        assert (mlc[role].transform, hf[role].transform) == ("none", "add_one")
    assert hf["layers.0.delta.norm"].transform == "none"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attn_output_gate": False}, "attn_output_gate is False"),
        ({"layer_types": ["full_attention"] * 31 + ["mamba"]}, "has 'mamba'"),
        ({"layer_types": ["linear_attention"] * 32}, "none of 32 layers has full attention"),
        ({"linear_num_value_heads": 24}, "linear_num_value_heads is 24.* a multiple of .* 16"),
        ({"linear_value_head_dim": 126}, "linear_value_head_dim is 126.* a multiple of 4"),
        ({"linear_value_head_dim": 1028}, "linear_value_head_dim is 1028.* at most 1024"),
        (
            {"linear_num_value_heads": 1, "linear_num_key_heads": 1, "linear_value_head_dim": 36},
            "linear_num_value_heads . linear_value_head_dim is 36.* a multiple of 32",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedModelConfigError, match=text):
        of_4b(**changes)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(max_compute_workgroup_storage_size=8192), "9,984 bytes of workgroup memory"),
        (Limits(max_storage_buffer_binding_size=1 << 20), "2,097,152 bytes of a buffer"),
    ],
)
def test_a_gpu_that_is_too_small_for_a_state(limits: Limits, text: str) -> None:
    made = spec_of("qwen3_5", HF_4B, context=512, head_dim=64)
    for fitting in (made, of_4b()):
        require_attention_fits(fitting, Limits())
    with pytest.raises(LimitSupportError, match=f"32 heads of 128 by 128 needs {text}"):
        require_attention_fits(made, limits)
