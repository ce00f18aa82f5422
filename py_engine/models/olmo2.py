"""OLMo 2: Llama with norms of the branches' outputs alone, and of queries and keys as a whole."""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.kernels.attention_shape import QkNorm
from py_engine.models.family import Family
from py_engine.models.llama import LLAMA_NAMES, llama_spec
from py_engine.models.spec import Block, DecoderSpec
from py_engine.weights.parameters import NameTable, norm_names


def olmo2_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of an OLMo 2 model into a spec. Errors: those of `llama_spec`."""
    spec = llama_spec(config)
    return replace(
        spec,
        heads=replace(spec.heads, qk_norm=QkNorm("full_rms", spec.norm.eps)),
        block=Block(input_norm=False, post_attention_norm=True, mlp_norm=False, post_mlp_norm=True),
    )


def _named(table: NameTable) -> NameTable:
    layer = "model.layers.{i}"
    return {
        **table,
        **norm_names("layers.{i}.post_attention_norm", f"{layer}.post_attention_layernorm"),
        **norm_names("layers.{i}.post_mlp_norm", f"{layer}.post_feedforward_layernorm"),
    }


OLMO2 = Family(olmo2_spec, {kind: _named(table) for kind, table in LLAMA_NAMES.items()})
