"""Frequencies of rotary position embeddings, and the ways configurations write them down.

Source: Su et al. 2021; the scalings equal transformers' `ROPE_INIT_FUNCTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields, shown
from py_engine.models.spec import LongRope, Rope

DEFAULT_THETA = 10000.0


@dataclass(frozen=True)
class RopeSettings:
    """What a configuration says of one RoPE: its base, and the object that describes its scaling.

    `max_positions` is the longest sequence of the whole model, `original` the longest before any
    scaling; both are 0 where nothing is said.
    """

    theta: float
    kind: str
    scaling: JsonFields
    max_positions: int
    original: int


def rotary_dim(fields: JsonFields, head_dim: int, default: float = 1.0) -> int:
    """Return how many values of a head are rotated: `partial_rotary_factor` of it.

    The factor stands in `model_config` or in its `rope_parameters`. Raises
    UnsupportedModelConfigError where it leaves an odd number, ModelFileFormatError for a bad field.
    """
    name = "partial_rotary_factor"
    nested = _parameters(fields, None)
    factor = nested.number(name, fields.number(name, default, minimum=0, maximum=1), minimum=0)
    size = int(head_dim * factor)
    if size % 2:
        raise UnsupportedModelConfigError(
            f"{fields.where(name)} is {factor:g}, which rotates {size} values of a head of "
            f"{head_dim}, but they are rotated in pairs. Use a configuration of the same model as "
            "the weights."
        )
    return size


def rope_settings(
    fields: JsonFields, layer_type: str | None = None, default_theta: float = DEFAULT_THETA
) -> RopeSettings:
    """Read RoPE's fields from a `model_config`, in MLC's or Hugging Face's spelling.

    The base is `rope_parameters.rope_theta`, `rope_theta` or MLC's `position_embedding_base`; the
    scaling is `rope_scaling` or `rope_parameters` (for `layer_type`, where that has an object for
    each type of layer). Raises ModelFileFormatError for a bad field.
    """
    scaling = _parameters(fields, layer_type)
    legacy = fields.number("position_embedding_base", 0, minimum=0) or default_theta
    theta = fields.number("rope_theta", legacy, above=0)
    trained = fields.integer("context_window_size", 0)
    max_positions = fields.integer("max_position_embeddings", max(trained, 0), minimum=0)
    name = "original_max_position_embeddings"
    original = fields.integer(name, 0, minimum=0) or scaling.integer(name, 0, minimum=0)
    key = "rope_type" if "rope_type" in scaling else "type"
    kind = scaling.string(key, "llama3" if "low_freq_factor" in scaling else "default")
    return RopeSettings(
        theta=scaling.number("rope_theta", theta, above=0),
        # Phi-3's first files called LongRoPE so.
        kind="longrope" if kind == "su" or "long_factor" in scaling else kind,
        scaling=scaling,
        max_positions=max_positions,
        original=original or max_positions,
    )


def _parameters(fields: JsonFields, layer_type: str | None) -> JsonFields:
    found = fields.object("rope_scaling" if fields.value("rope_scaling") else "rope_parameters")
    return found.object(layer_type) if layer_type is not None and layer_type in found else found


def make_rope(settings: RopeSettings, dim: int, context: int) -> Rope:
    """Return the RoPE of heads of which `dim` values are rotated, for sequences up to `context`.

    Errors: UnsupportedModelConfigError for a kind of scaling that is not known, and for "dynamic"
    past the model's own length; ModelFileFormatError for a bad field.
    """
    scaled = _KINDS.get(settings.kind)
    if scaled is None:
        key = "rope_type" if "rope_type" in settings.scaling else "type"
        raise UnsupportedModelConfigError(
            f"{settings.scaling.where(key)} is {shown(settings.kind)}, a RoPE scaling that is not "
            f"supported. Supported are {', '.join(_KINDS)}: choose a model that uses one of them."
        )
    return scaled(settings, dim, context)


def _base(settings: RopeSettings, dim: int) -> list[float]:
    return [settings.theta ** (-2 * i / dim) for i in range(dim // 2)]


def _default(settings: RopeSettings, dim: int, context: int) -> Rope:
    return Rope(tuple(_base(settings, dim)))


def _linear(settings: RopeSettings, dim: int, context: int) -> Rope:
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023)."""
    factor = settings.scaling.number("factor", above=0)
    return Rope(tuple(frequency / factor for frequency in _base(settings, dim)))


def _dynamic(settings: RopeSettings, dim: int, context: int) -> Rope:
    """NTK-aware scaling, which begins past `max_position_embeddings`.

    There transformers rotates each key by the frequencies of the length at which it came, so that
    the result depends on how a prompt was split; such lengths are refused.
    """
    if context > settings.max_positions:
        raise UnsupportedModelConfigError(
            f"{settings.scaling.where('rope_type')} is 'dynamic', whose frequencies change with "
            f"every token past max_position_embeddings, {settings.max_positions}, but the context "
            f"is {context} tokens. Set context_window_size to at most {settings.max_positions} in "
            "chat_opts."
        )
    return _default(settings, dim, context)


def _llama3(settings: RopeSettings, dim: int, context: int) -> Rope:
    """Llama 3.1's scaling: low frequencies divided by `factor`, high ones kept, blended between.

    A frequency is high when its wavelength is below original length / high_freq_factor, and low
    when above original length / low_freq_factor.
    """
    fields = settings.scaling
    factor = fields.number("factor", above=0)
    low, high = (fields.number(f"{name}_freq_factor", above=0) for name in ("low", "high"))
    original = _required_original(settings)

    def scaled(frequency: float) -> float:
        turns = original * frequency / (2 * math.pi)
        if turns > high:
            return frequency
        if turns < low:
            return frequency / factor
        kept = (turns - low) / (high - low)
        return (1 - kept) * frequency / factor + kept * frequency

    return Rope(tuple(map(scaled, _base(settings, dim))))


def _yarn(settings: RopeSettings, dim: int, context: int) -> Rope:
    """YaRN (Peng et al. 2023): frequencies of few turns are divided, those of many turns kept."""
    fields, original = settings.scaling, _required_original(settings)
    stretch = max(settings.max_positions, original) / original
    factor = fields.number("factor", stretch, above=0)

    def dimension(rotations: float) -> float:
        """Return the dimension that turns so often within the original length."""
        turns = original / (rotations * 2 * math.pi)
        return dim * math.log(turns) / (2 * math.log(settings.theta))

    low = dimension(fields.number("beta_fast", 32.0, minimum=0) or 32.0)
    high = dimension(fields.number("beta_slow", 1.0, minimum=0) or 1.0)
    if fields.boolean("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = (high - low) or 0.001

    def scaled(index: int, frequency: float) -> float:
        divided = min(max((index - low) / width, 0.0), 1.0)
        return frequency / factor * divided + frequency * (1 - divided)

    frequencies = tuple(scaled(i, frequency) for i, frequency in enumerate(_base(settings, dim)))
    return Rope(frequencies, _yarn_attention_factor(fields, factor))


def _yarn_attention_factor(fields: JsonFields, factor: float) -> float:
    if "attention_factor" in fields:
        return fields.number("attention_factor", above=0)

    def magnitude(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    scale, whole = fields.number("mscale", 0.0), fields.number("mscale_all_dim", 0.0)
    return magnitude(scale) / magnitude(whole) if scale and whole else magnitude(1.0)


def _longrope(settings: RopeSettings, dim: int, context: int) -> Rope:
    """LongRoPE (Ding et al. 2024): a divisor for every frequency, others for long sequences."""
    fields, original = settings.scaling, _required_original(settings)
    short, long = (_divided(settings, name, dim) for name in ("short_factor", "long_factor"))
    factor = fields.number("factor", max(settings.max_positions, original) / original, above=0)
    default = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    attention_factor = fields.number("attention_factor", default, above=0)
    switch = LongRope(original, long) if context > original else None
    return Rope(short, attention_factor, switch)


def _divided(settings: RopeSettings, name: str, dim: int) -> tuple[float, ...]:
    fields = settings.scaling
    factors = fields.numbers(name)
    if len(factors) != dim // 2 or min(factors) <= 0:
        raise fields.invalid(name, f"an array of {dim // 2} numbers above 0")
    return tuple(f / by for f, by in zip(_base(settings, dim), factors, strict=True))


def _required_original(settings: RopeSettings) -> int:
    name = "original_max_position_embeddings"
    return settings.original or settings.scaling.integer(name, minimum=1)


_KINDS: Mapping[str, Callable[[RopeSettings, int, int], Rope]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
