"""Frequencies of rotary position embeddings, and the ways configurations write them down."""

from __future__ import annotations

import math
from dataclasses import dataclass

from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields, shown

DEFAULT_THETA = 10000.0


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023)."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's scaling: low frequencies divided by `factor`, high ones kept, blended between.

    A frequency is high when its wavelength is below `original_max_position_embeddings /
    high_freq_factor` tokens, and low when above the same over `low_freq_factor`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class RopeSettings:
    """Base of the frequencies, and their scaling if any."""

    theta: float = DEFAULT_THETA
    scaling: LinearScaling | Llama3Scaling | None = None


def rope_settings(fields: JsonFields) -> RopeSettings:
    """Read RoPE's fields from a `model_config`, in MLC's or Hugging Face's spelling.

    The base is `rope_parameters.rope_theta`, `rope_theta` or MLC's `position_embedding_base`; the
    scaling is `rope_parameters` or `rope_scaling`. Errors: UnsupportedModelConfigError for a kind
    of scaling that is not known, ModelFileFormatError for a bad field.
    """
    newest = fields.object("rope_parameters")
    scaling = newest if "rope_parameters" in fields else fields.object("rope_scaling")
    legacy = fields.number("position_embedding_base", DEFAULT_THETA, minimum=0) or DEFAULT_THETA
    theta = fields.number("rope_theta", legacy, above=0)
    return RopeSettings(newest.number("rope_theta", theta, above=0), _scaling(scaling))


def _scaling(fields: JsonFields) -> LinearScaling | Llama3Scaling | None:
    key = "rope_type" if "rope_type" in fields else "type"
    kind = fields.string(key, "llama3" if "low_freq_factor" in fields else "default")
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(fields.number("factor", above=0))
    if kind == "llama3":
        return Llama3Scaling(
            factor=fields.number("factor", above=0),
            low_freq_factor=fields.number("low_freq_factor", above=0),
            high_freq_factor=fields.number("high_freq_factor", above=0),
            original_max_position_embeddings=fields.integer(
                "original_max_position_embeddings", minimum=1
            ),
        )
    raise UnsupportedModelConfigError(
        f"{fields.where(key)} is {shown(kind)}, a RoPE scaling that is not supported. "
        "Supported are default, linear and llama3: choose a model that uses one of them."
    )


def rope_inv_freq(head_dim: int, settings: RopeSettings) -> tuple[float, ...]:
    """Return the rotation frequencies, (head_dim / 2,), in radians per position.

    Source: Su et al. 2021; the scalings equal transformers' `ROPE_INIT_FUNCTIONS`.
    """
    base = [settings.theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    scaling = settings.scaling
    if scaling is None:
        return tuple(base)
    if isinstance(scaling, LinearScaling):
        return tuple(frequency / scaling.factor for frequency in base)
    return tuple(_llama3_scaled(frequency, scaling) for frequency in base)


def _llama3_scaled(frequency: float, scaling: Llama3Scaling) -> float:
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
    if turns > high:
        return frequency
    if turns < low:
        return frequency / scaling.factor
    kept = (turns - low) / (high - low)
    return (1 - kept) * frequency / scaling.factor + kept * frequency
