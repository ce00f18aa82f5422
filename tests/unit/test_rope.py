"""Rotation frequencies: equal to transformers', read from every spelling of the configuration."""

from __future__ import annotations

import math
from typing import Any

import pytest

from py_engine.errors import ModelFileFormatError, UnsupportedModelConfigError
from py_engine.json_fields import JsonFields
from py_engine.models.rope import make_rope, rope_settings
from py_engine.models.spec import Rope
from tests.conformance.cases import ROPE_CASES
from tests.conformance.fixtures import load_rope

LLAMA3 = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def rope(dim: int, context: int = 4096, **config: Any) -> Rope:
    return make_rope(rope_settings(JsonFields(config, "config.json")), dim, context)


@pytest.mark.parametrize("index", range(len(ROPE_CASES)))
def test_frequencies_equal_transformers(index: int) -> None:
    head_dim, parameters = ROPE_CASES[index]
    ours = rope(head_dim, rope_parameters=parameters, max_position_embeddings=16384)
    # transformers computes in f32.
    assert ours.inv_freq == pytest.approx(load_rope()[index], rel=2e-6)


def test_frequencies_by_hand() -> None:
    assert rope(4, rope_theta=100).inv_freq == pytest.approx((1.0, 0.1))
    linear = {"type": "linear", "factor": 2}
    assert rope(4, rope_theta=100, rope_scaling=linear).inv_freq == pytest.approx((0.5, 0.05))


def test_llama3_keeps_high_divides_low_and_blends_between() -> None:
    plain = rope(128, rope_theta=500000.0)
    scaling = {"rope_type": "llama3", **LLAMA3, "factor": 8.0}
    scaled = rope(128, rope_theta=500000.0, rope_scaling=scaling)
    for before, after in zip(plain.inv_freq, scaled.inv_freq, strict=True):
        turns = 8192 * before / (2 * math.pi)
        if turns > 4:
            assert after == before
        elif turns < 1:
            assert after == pytest.approx(before / 8)
        else:
            assert before / 8 < after < before


@pytest.mark.parametrize(
    ("config", "theta"),
    [
        ({}, 10000.0),
        ({"rope_theta": 5e5}, 5e5),
        ({"position_embedding_base": 5e5}, 5e5),
        ({"position_embedding_base": 0}, 10000.0),
        ({"rope_scaling": None}, 10000.0),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7e4}}, 7e4),
    ],
)
def test_base_from_every_spelling(config: dict[str, Any], theta: float) -> None:
    assert rope(8, **config).inv_freq[2] == pytest.approx(theta**-0.5)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": LLAMA3, "rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ],
)
def test_scaling_from_every_spelling(config: dict[str, Any]) -> None:
    settings = rope_settings(JsonFields(config, "config.json"), "full_attention")
    plain = rope(64, rope_theta=5e5).inv_freq
    assert make_rope(settings, 64, 4096).inv_freq[-1] == pytest.approx(plain[-1] / 32)


def test_dynamic_scaling_is_none_up_to_the_model_s_length() -> None:
    config = {"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 2048}
    assert rope(8, 2048, **config) == rope(8)
    with pytest.raises(UnsupportedModelConfigError, match="context_window_size to at most 2048"):
        rope(8, 2049, **config)


def longrope(kind: str = "longrope", **more: Any) -> dict[str, Any]:
    factors = {"short_factor": [1.0, 2.0], "long_factor": [4.0, 8.0]}
    return {
        "rope_scaling": {"type": kind, **factors, **more},
        "original_max_position_embeddings": 4096,
        "max_position_embeddings": 131072,
    }


@pytest.mark.parametrize("kind", ["longrope", "su"])
def test_longrope_has_frequencies_for_either_length(kind: str) -> None:
    made = rope(4, 8192, **longrope(kind))
    assert made.inv_freq == pytest.approx((1.0, 0.005))
    assert made.long is not None
    assert made.long.inv_freq == pytest.approx((0.25, 0.00125))
    assert made.long.limit == 4096
    assert made.factor == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))
    assert rope(4, 8192, **longrope(attention_factor=1.5)).factor == 1.5


def test_a_context_below_the_limit_is_always_short() -> None:
    made = rope(4, 4096, **longrope())
    assert made.long is None
    assert made.inv_freq == pytest.approx((1.0, 0.005))


@pytest.mark.parametrize("factors", [[1.0], [1.0, 0.0], [1.0, "2"], None])
def test_factors_of_another_shape_are_refused(factors: Any) -> None:
    with pytest.raises(ModelFileFormatError, match=r"rope_scaling\.long_factor"):
        rope(4, **longrope(long_factor=factors))


@pytest.mark.parametrize("kind", ["mrope", "proportional"])
def test_unknown_scaling_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedModelConfigError, match=rf"scaling\.type is '{kind}'.*llama3"):
        rope(8, rope_scaling={"type": kind, "factor": 4.0})


def test_bad_field_is_named() -> None:
    with pytest.raises(ModelFileFormatError, match=r"json: rope_scaling\.factor is missing"):
        rope(8, rope_scaling={"rope_type": "linear"})
