"""Which tensors a decoder needs, in each weight format."""

from __future__ import annotations

from dataclasses import replace

import pytest

from py_engine.config import ChatConfig
from py_engine.kernels.formats import WeightFormat
from py_engine.models.llama import llama_spec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.plan import WeightSlot, weight_slots


def make_spec(weight_format: WeightFormat, tied: bool = True) -> DecoderSpec:
    model = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_hidden_layers": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
    }
    return llama_spec(
        ChatConfig.from_json(
            {
                "model_type": "llama",
                "quantization": weight_format,
                "vocab_size": 103,
                "context_window_size": 128,
                "model_config": model,
            }
        )
    )


def slots(weight_format: WeightFormat) -> dict[str, WeightSlot]:
    return {slot.name: slot for slot in weight_slots(make_spec(weight_format))}


@pytest.mark.parametrize(("weight_format", "scale"), [("q4f16_1", "f16"), ("q4f32_1", "f32")])
def test_quantised_matrices_are_codes_and_scales(weight_format: WeightFormat, scale: str) -> None:
    made = slots(weight_format)
    qkv = "model.layers.1.self_attn.qkv_proj"
    assert made[f"{qkv}.q_weight"] == WeightSlot(f"{qkv}.q_weight", (256, 8), "u32")
    assert made[f"{qkv}.q_scale"].shape == (256, 2)
    assert made[f"{qkv}.q_scale"].layout == scale
    assert made["model.layers.0.self_attn.o_proj.q_weight"].shape == (64, 16)
    assert made["model.layers.0.mlp.gate_up_proj.q_weight"].shape == (192, 8)
    assert made["model.layers.0.mlp.down_proj.q_scale"].shape == (64, 3)
    assert made["model.embed_tokens.q_weight"].shape == (103, 8)


@pytest.mark.parametrize(("weight_format", "layout"), [("q0f16", "f16"), ("q0f32", "f32")])
def test_plain_matrices_are_one_tensor(weight_format: WeightFormat, layout: str) -> None:
    made = slots(weight_format)
    name = "model.embed_tokens.weight"
    assert made[name] == WeightSlot(name, (103, 64), layout)  # type: ignore[arg-type]
    assert not [name for name in made if "q_weight" in name]


def test_norms_are_f32_in_every_format() -> None:
    for weight_format in ("q4f16_1", "q4f32_1", "q0f16", "q0f32"):
        made = slots(weight_format)
        norms = [slot for name, slot in made.items() if "norm" in name]
        assert len(norms) == 5
        assert {(slot.shape, slot.layout) for slot in norms} == {((64,), "f32")}


def test_names_are_unique_and_the_head_is_optional() -> None:
    tied = weight_slots(make_spec("q4f16_1"))
    untied = weight_slots(make_spec("q4f16_1", tied=False))
    assert len({slot.name for slot in tied}) == len(tied) == 5 + 2 * 9
    assert {slot.name for slot in untied} - {slot.name for slot in tied} == {
        "lm_head.q_weight",
        "lm_head.q_scale",
    }


def test_biases_and_norms_of_heads() -> None:
    layers = tuple(
        replace(layer, head_norms=(f"q_norm {i}", f"k_norm {i}"))
        for i, layer in enumerate(make_spec("q4f16_1").layers)
    )
    spec = replace(make_spec("q4f16_1"), layers=layers, qkv_bias=True)
    made = {slot.name: slot for slot in weight_slots(spec)}
    added = set(made) - {slot.name for slot in weight_slots(make_spec("q4f16_1"))}
    assert {(made[name].shape, made[name].layout) for name in added if "norm" in name} == {
        ((32,), "f32")
    }
    assert len(added) == 6
    bias = "model.layers.1.self_attn.qkv_proj.bias"
    assert made[bias] == WeightSlot(bias, (256,), "f32")


def test_columns_that_end_within_a_group_round_up() -> None:
    spec = replace(make_spec("q4f16_1"), hidden_size=40)
    made = {slot.name: slot.shape for slot in weight_slots(spec)}
    assert made["model.embed_tokens.q_weight"] == (103, 8)
    assert made["model.embed_tokens.q_scale"] == (103, 2)
