"""Gemma 3, its text model: Gemma 2 with norms of heads, and a RoPE of its own in local layers.

As in transformers. MLC rotates all layers by one base, and has no windows.
"""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.json_fields import JsonFields
from py_engine.kernels.attention_shape import QkNorm
from py_engine.models.common import layer_types, read_lengths, refuse, with_defaults
from py_engine.models.family import Family
from py_engine.models.gemma import gemma_spec
from py_engine.models.gemma2 import (
    DEFAULT_WINDOW,
    GEMMA2_NAMES,
    SANDWICH,
    score_scale,
    soft_cap,
    with_local_layers,
)
from py_engine.models.llama import LLAMA_NAMES, LLAMA_SPELLINGS
from py_engine.models.rope import RopeSettings, make_rope, rope_settings
from py_engine.models.spec import DecoderSpec, Layer
from py_engine.weights.parameters import FileKind, NameTable, Spelling, respelled

DEFAULT_PERIOD = 6
GLOBAL_THETA = 1_000_000.0
LOCAL_THETA = 10_000.0


def gemma3_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Gemma 3 model into a spec. Errors: those of `llama_spec`."""
    text = with_defaults(text_config(config), num_attention_heads=8, num_key_value_heads=4)
    period = text.model_fields().integer("sliding_window_pattern", DEFAULT_PERIOD, minimum=1)
    text = with_local_layers(text, period, DEFAULT_WINDOW)
    fields = text.model_fields()
    refuse(fields, use_bidirectional_attention=False)
    spec = gemma_spec(text)
    settings = (rope_settings(fields, "full_attention", GLOBAL_THETA), _local_rope(fields))
    context, dim = read_lengths(text).rope_context, spec.heads.head_dim
    return replace(
        spec,
        heads=replace(
            spec.heads, scale=score_scale(fields), qk_norm=QkNorm("head_rms", spec.norm.eps)
        ),
        block=SANDWICH,
        layers=tuple(map(_layer, spec.layers, layer_types(fields, spec.n_layers))),
        ropes=tuple(make_rope(rope, dim, context) for rope in settings),
        logit_soft_cap=soft_cap(fields, "final_logit_softcapping", None),
    )


def text_config(config: ChatConfig) -> ChatConfig:
    """Return a configuration of the text model alone.

    Multimodal checkpoints and MLC's files have it nested as `text_config`; MLC keeps in `kwargs`
    what it does not read itself, and writes 0 for no scaling of RoPE.
    """
    text = config.model_fields().object("text_config")
    merged = {
        **config.model_config,
        **text.object("kwargs").data,
        **{name: value for name, value in text.data.items() if value is not None},
    }
    if not merged.get("rope_scaling"):
        merged.pop("rope_scaling", None)
    window = text.integer("sliding_window_size", 0)
    if window > 0:
        merged["sliding_window"] = window
    return replace(config, model_config=merged)


def _local_rope(fields: JsonFields) -> RopeSettings:
    if "sliding_attention" in fields.object("rope_parameters"):
        return rope_settings(fields, "sliding_attention", LOCAL_THETA)
    theta = fields.number("rope_local_base_freq", LOCAL_THETA, above=0)
    return rope_settings(JsonFields({"rope_theta": theta}, fields.source, path=fields.path))


def _layer(layer: Layer, kind: str) -> Layer:
    return replace(layer, rope=1 if kind == "sliding_attention" else 0)


_SHARED_IN_MLC: NameTable = {
    **GEMMA2_NAMES["mlc"],
    **{role: LLAMA_NAMES["hf"][role] for role in ("layers.{i}.qkv", "layers.{i}.qkv.bias")},
}

GEMMA3_NAMES: dict[FileKind, NameTable] = {
    "mlc": respelled(_SHARED_IN_MLC, Spelling(prefixes=(("", "language_model."),))),
    "hf": GEMMA2_NAMES["hf"],
}
"""In MLC's files queries, keys and values are not fused."""

GEMMA3 = Family(gemma3_spec, GEMMA3_NAMES, LLAMA_SPELLINGS)
