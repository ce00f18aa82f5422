"""Gemma 2: Gemma with soft caps, norms behind its branches, and windows in every other layer.

As in transformers. MLC leaves out the cap of attention scores, and cuts the context to the window.
"""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.json_fields import JsonFields
from py_engine.models.common import with_defaults
from py_engine.models.family import Family
from py_engine.models.gemma import gemma_spec, shifted_norms
from py_engine.models.llama import LLAMA_NAMES, LLAMA_SPELLINGS
from py_engine.models.spec import Block, DecoderSpec
from py_engine.weights.parameters import FileKind, NameTable, norm_names

DEFAULT_WINDOW = 4096
DEFAULT_SCALAR = 256
SCORE_CAP = 50.0
LOGIT_CAP = 30.0

SANDWICH = Block(post_attention_norm=True, post_mlp_norm=True)
"""Attention and MLP each have a norm before and one behind."""


def gemma2_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Gemma 2 model into a spec. Errors: those of `llama_spec`."""
    fields = config.model_fields()
    filled = with_local_layers(config, period=2, window=DEFAULT_WINDOW)
    spec = gemma_spec(filled)
    heads = replace(
        spec.heads,
        scale=score_scale(fields),
        soft_cap=soft_cap(fields, "attn_logit_softcapping", SCORE_CAP),
    )
    logit_cap = soft_cap(fields, "final_logit_softcapping", LOGIT_CAP)
    return replace(spec, heads=heads, block=SANDWICH, logit_soft_cap=logit_cap)


def with_local_layers(config: ChatConfig, period: int, window: int) -> ChatConfig:
    """Return a configuration that says which layers see only a window.

    Where it is silent, all do but the last one of every `period`, and their size is `window`.
    """
    n_layers = config.model_fields().integer("num_hidden_layers", minimum=1)
    types = [
        "sliding_attention" if (index + 1) % period else "full_attention"
        for index in range(n_layers)
    ]
    return with_defaults(config, layer_types=types, sliding_window=window)


def score_scale(fields: JsonFields) -> float:
    """Return the factor of attention scores, from `query_pre_attn_scalar`."""
    return float(fields.number("query_pre_attn_scalar", DEFAULT_SCALAR, above=0) ** -0.5)


def soft_cap(fields: JsonFields, name: str, default: float | None) -> float | None:
    """Return a cap; null in the file is none, and a missing field `default`."""
    if name in fields:
        return fields.number(name, above=0)
    return None if name in fields.data else default


def _sandwich_names(table: NameTable) -> NameTable:
    layer = "model.layers.{i}"
    return {
        **table,
        **norm_names("layers.{i}.post_attention_norm", f"{layer}.post_attention_layernorm"),
        **norm_names("layers.{i}.mlp_norm", f"{layer}.pre_feedforward_layernorm"),
        **norm_names("layers.{i}.post_mlp_norm", f"{layer}.post_feedforward_layernorm"),
    }


GEMMA2_NAMES: dict[FileKind, NameTable] = {
    "mlc": _sandwich_names(LLAMA_NAMES["mlc"]),
    "hf": shifted_norms(_sandwich_names(LLAMA_NAMES["hf"])),
}

GEMMA2 = Family(gemma2_spec, GEMMA2_NAMES, LLAMA_SPELLINGS)
