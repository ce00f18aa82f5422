"""Rotation frequencies: equal to transformers', read from every spelling of the configuration."""

from __future__ import annotations

import math
from typing import Any

import pytest

from py_engine.errors import ModelFileFormatError, UnsupportedModelConfigError
from py_engine.json_fields import JsonFields
from py_engine.models.rope import (
    LinearScaling,
    Llama3Scaling,
    RopeSettings,
    rope_inv_freq,
    rope_settings,
)
from tests.conformance.cases import ROPE_CASES
from tests.conformance.fixtures import load_rope

LLAMA3 = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA3_SCALING = Llama3Scaling(32.0, 1.0, 4.0, 8192)


def settings(**config: Any) -> RopeSettings:
    return rope_settings(JsonFields(config, "config.json"))


@pytest.mark.parametrize("index", range(len(ROPE_CASES)))
def test_frequencies_equal_transformers(index: int) -> None:
    head_dim, rope = ROPE_CASES[index]
    ours = rope_inv_freq(head_dim, settings(rope_parameters=rope))
    # transformers computes in f32.
    assert ours == pytest.approx(load_rope()[index], rel=2e-6)


def test_frequencies_by_hand() -> None:
    assert rope_inv_freq(4, RopeSettings(theta=100.0)) == pytest.approx((1.0, 0.1))
    assert rope_inv_freq(4, RopeSettings(100.0, LinearScaling(2.0))) == pytest.approx((0.5, 0.05))


def test_llama3_keeps_high_divides_low_and_blends_between() -> None:
    scaling = Llama3Scaling(8.0, 1.0, 4.0, 8192)
    plain = rope_inv_freq(128, RopeSettings(500000.0))
    scaled = rope_inv_freq(128, RopeSettings(500000.0, scaling))
    for before, after in zip(plain, scaled, strict=True):
        turns = 8192 * before / (2 * math.pi)
        if turns > 4:
            assert after == before
        elif turns < 1:
            assert after == pytest.approx(before / 8)
        else:
            assert before / 8 < after < before


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, RopeSettings(10000.0)),
        ({"rope_theta": 5e5}, RopeSettings(5e5)),
        ({"position_embedding_base": 5e5}, RopeSettings(5e5)),
        ({"position_embedding_base": 0}, RopeSettings(10000.0)),
        ({"rope_scaling": None}, RopeSettings()),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, RopeSettings(1e4, LinearScaling(2.0))),
        ({"rope_scaling": LLAMA3}, RopeSettings(1e4, LLAMA3_SCALING)),
        (
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
            RopeSettings(5e5, LLAMA3_SCALING),
        ),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
            RopeSettings(5e5, LLAMA3_SCALING),
        ),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7e4}}, RopeSettings(7e4)),
    ],
)
def test_settings_from_every_spelling(config: dict[str, Any], expected: RopeSettings) -> None:
    assert settings(**config) == expected


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope"])
def test_unknown_scaling_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedModelConfigError, match=rf"scaling\.type is '{kind}'.*llama3"):
        settings(rope_scaling={"type": kind, "factor": 4.0})


def test_bad_field_is_named() -> None:
    with pytest.raises(ModelFileFormatError, match=r"json: rope_scaling\.factor is missing"):
        settings(rope_scaling={"rope_type": "linear"})
