"""Qwen 2 and 2.5: Llama with biases on queries, keys and values, and windows of some layers."""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.models.common import with_defaults
from py_engine.models.family import Family
from py_engine.models.llama import LLAMA_NAMES, LLAMA_SPELLINGS, llama_spec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.parameters import FileKind, NameTable, linear_names


def qwen2_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Qwen 2 model into a spec. Errors: those of `llama_spec`."""
    spec = llama_spec(qwen_window_defaults(config))
    return replace(spec, heads=replace(spec.heads, qkv_bias=True, output_bias=False))


def qwen_window_defaults(config: ChatConfig) -> ChatConfig:
    """Return a configuration with what transformers assumes of a Qwen's windows where it is silent.

    Windows are off; where they are on, the first 28 layers have none.
    """
    return with_defaults(config, use_sliding_window=False, max_window_layers=28)


QWEN_NAMES: dict[FileKind, NameTable] = {
    "mlc": {
        **LLAMA_NAMES["mlc"],
        **linear_names("layers.{i}.qkv", "model.layers.{i}.self_attn.c_attn"),
    },
    "hf": LLAMA_NAMES["hf"],
}
"""MLC calls the fused projection `c_attn` in Qwen."""

QWEN2 = Family(qwen2_spec, QWEN_NAMES, LLAMA_SPELLINGS)
