"""RoPE of a GGUF model as Hugging Face's `rope_parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from py_engine.errors import UnsupportedModelConfigError
from py_engine.json_fields import JsonFields, shown

Factors = Mapping[str, tuple[float, ...]]
"""Divisors of frequencies by the names of the tensors that hold them."""

_THETA = "rope.freq_base"
_LOCAL_THETA = "rope.freq_base_swa"
_DEFAULT_THETA = 10000.0

_YARN: Mapping[str, str] = {
    "attention_factor": "rope.scaling.yarn_attn_factor",
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
    "llama_4_scaling_beta": "attention.temperature_scale",
}


def rope_parameters(factors: Factors, fields: JsonFields, head_dim: int) -> dict[str, Any]:
    """Return `rope_parameters` of a model, or of those of its layers that see everything.

    Errors: UnsupportedModelConfigError for a kind of scaling that is not known,
    ModelFileFormatError.
    """
    scaling = _from_tensors(factors, fields) or _from_metadata(fields)
    return {**_base(fields, _THETA, head_dim), **scaling}


def local_rope_parameters(fields: JsonFields, head_dim: int) -> dict[str, Any]:
    """Return `rope_parameters` of the layers that see a window: a base of their own, no scaling."""
    return {**_base(fields, _LOCAL_THETA, head_dim), "rope_type": "default"}


def _base(fields: JsonFields, theta: str, head_dim: int) -> dict[str, Any]:
    rotated = fields.integer("rope.dimension_count", head_dim, minimum=0, maximum=head_dim)
    return {
        "rope_theta": fields.number(theta, _DEFAULT_THETA, above=0),
        "partial_rotary_factor": rotated / head_dim,
    }


def _from_tensors(factors: Factors, fields: JsonFields) -> dict[str, Any] | None:
    """Return a scaling whose factors are tensors of the file.

    Llama 3 has one set for all lengths: as both sets of "longrope" it is applied as it is.
    """
    context = fields.integer("context_length", minimum=1)
    original, attention = context, 1.0
    long = short = factors.get("rope_freqs.weight")
    if "rope_factors_long.weight" in factors:
        long = factors["rope_factors_long.weight"]
        short = factors.get("rope_factors_short.weight")
        original = fields.integer("rope.scaling.original_context_length", context, minimum=1)
        attention = fields.number("rope.scaling.attn_factor", 0.0, minimum=0)
    if long is None or short is None:
        return None
    return {
        "rope_type": "longrope",
        "long_factor": list(long),
        "short_factor": list(short),
        "original_max_position_embeddings": original,
        # Without it, it follows from the lengths.
        **({"attention_factor": attention} if attention else {}),
    }


def _from_metadata(fields: JsonFields) -> dict[str, Any]:
    kind = fields.string("rope.scaling.type", "linear")
    factor = fields.number("rope.scaling.factor", 1.0, above=0)
    if kind in ("none", "longrope") or factor == 1.0:
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise UnsupportedModelConfigError(
            f"{fields.where('rope.scaling.type')} is {shown(kind)}, but only none, linear, yarn "
            "and longrope are supported. Choose a model that uses one of them."
        )
    name = "rope.scaling.original_context_length"
    found = {ours: fields.value(theirs) for ours, theirs in _YARN.items()}
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": fields.integer(name, minimum=1),
        **{ours: value for ours, value in found.items() if value is not None},
        **_magnitudes(fields.number("rope.scaling.yarn_log_multiplier", 0.0)),
    }


def _magnitudes(whole: float) -> dict[str, float]:
    """Return YaRN's `mscale`s; files have that of all dimensions, and only beside one of 1."""
    return {"mscale": 1.0, "mscale_all_dim": whole} if whole else {}
