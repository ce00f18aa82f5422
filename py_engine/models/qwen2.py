"""Qwen 2 and 2.5: Llama with biases on the fused projection of queries, keys and values."""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.models.llama import llama_layer_names, llama_spec
from py_engine.models.spec import DecoderSpec, LayerNames


def qwen2_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Qwen2 model into a spec. Errors: those of `llama_spec`."""
    spec = llama_spec(config)
    layers = tuple(map(qwen_layer_names, range(spec.n_layers)))
    return replace(spec, layers=layers, qkv_bias=True)


def qwen_layer_names(index: int) -> LayerNames:
    """Return the names of layer `index`: MLC calls the fused projection `c_attn` in Qwen."""
    names = llama_layer_names(index)
    return replace(names, qkv=f"model.layers.{index}.self_attn.c_attn")
