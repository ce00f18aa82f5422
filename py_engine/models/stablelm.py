"""StableLM: Llama with LayerNorms, of whose heads only a part is rotated."""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.kernels.attention_shape import QkNorm
from py_engine.kernels.norm import Norm
from py_engine.models.common import with_defaults
from py_engine.models.family import Family
from py_engine.models.llama import LLAMA_NAMES, LLAMA_SPELLINGS, llama_spec
from py_engine.models.spec import Block, DecoderSpec
from py_engine.weights.parameters import HEAD, FileKind, NameTable, named

DEFAULT_ROTARY_FACTOR = 0.25


def stablelm_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a StableLM into a spec. Errors: those of `llama_spec`."""
    fields = config.model_fields()
    spec = llama_spec(with_defaults(config, partial_rotary_factor=DEFAULT_ROTARY_FACTOR))
    eps = fields.number("layer_norm_eps", 1e-5, above=0)
    parallel = fields.boolean("use_parallel_residual", False)
    heads = replace(
        spec.heads,
        qkv_bias=fields.boolean("use_qkv_bias", False),
        qk_norm=QkNorm("head_layer", eps) if fields.boolean("qk_layernorm", False) else None,
    )
    return replace(
        spec,
        heads=heads,
        norm=Norm("layer", eps, bias=True),
        block=Block(mlp_norm=not parallel, parallel=parallel),
    )


_ATTENTION = "model.layers.{i}.self_attn"

STABLELM_NAMES: dict[FileKind, NameTable] = {
    "mlc": {
        **LLAMA_NAMES["mlc"],
        "layers.{i}.q_norm": named(f"{_ATTENTION}.q_layernorm.weight"),
        "layers.{i}.k_norm": named(f"{_ATTENTION}.k_layernorm.weight"),
    },
    "hf": {
        **LLAMA_NAMES["hf"],
        "layers.{i}.q_norm": named(f"{_ATTENTION}.q_layernorm.norms.{HEAD}.weight"),
        "layers.{i}.k_norm": named(f"{_ATTENTION}.k_layernorm.norms.{HEAD}.weight"),
    },
}
"""MLC has no StableLM with norms of heads; in its files ours would be one vector for all heads."""

STABLELM = Family(stablelm_spec, STABLELM_NAMES, LLAMA_SPELLINGS)
