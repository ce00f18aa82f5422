"""Which tensors a decoder needs, in each weight format."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.kernels.formats import WeightFormat
from py_engine.weights.parameters import MatrixParameter, named
from py_engine.weights.plan import (
    MatrixPart,
    WeightSlot,
    part_buffers,
    uniform_layouts,
    weight_slots,
)
from tests.support.model_slots import slots_of


def make_config(
    weight_format: WeightFormat, tied: bool = True, family: str = "llama", **model: Any
) -> ChatConfig:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_hidden_layers": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
    }
    return ChatConfig.from_json(
        {
            "model_type": family,
            "quantization": weight_format,
            "vocab_size": 103,
            "context_window_size": 128,
            "model_config": {**sizes, **model},
        }
    )


def slots(weight_format: WeightFormat, **options: Any) -> dict[str, WeightSlot]:
    found = slots_of(make_config(weight_format, **options))
    assert len({slot.name for slot in found}) == len(found)
    return {slot.name: slot for slot in found}


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


def test_the_head_is_optional() -> None:
    tied, untied = slots("q4f16_1"), slots("q4f16_1", tied=False)
    assert len(tied) == 5 + 2 * 9
    assert set(untied) - set(tied) == {"lm_head.q_weight", "lm_head.q_scale"}


def test_biases_and_norms_of_heads() -> None:
    plain, made = slots("q4f16_1"), slots("q4f16_1", family="qwen3", attention_bias=True)
    norms = {slot.shape for name, slot in made.items() if "self_attn" in name and "norm" in name}
    assert norms == {(32,)}
    assert len(made) == len(plain) + 2 * 4
    bias = "model.layers.1.self_attn.c_attn.bias"
    assert made[bias] == WeightSlot(bias, (256,), "f32")


def test_columns_that_end_within_a_group_round_up() -> None:
    parameter = MatrixParameter("embedding", (103,), 40)
    found = weight_slots([parameter], {"embedding": named("table")}, "q4f16_1")
    assert [slot.shape for slot in found.values()] == [(103, 8), (103, 2)]
    assert list(found) == ["embedding.0.weights", "embedding.0.scales"]


def test_a_part_s_buffers_are_named_by_role_and_number() -> None:
    layouts = uniform_layouts([MatrixParameter("lm_head", (8,), 32)], "q0f16")
    assert layouts == {"lm_head": (MatrixPart("q0f16", 8, 0),)}
    assert part_buffers("lm_head", 2, layouts["lm_head"][0])["weights"] == "lm_head.2.weights"
