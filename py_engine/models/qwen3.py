"""Qwen 3: Llama with an RMSNorm over each head of queries and keys before RoPE, without biases."""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.models.llama import llama_spec
from py_engine.models.qwen2 import qwen_layer_names
from py_engine.models.spec import DecoderSpec, LayerNames


def qwen3_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Qwen3 model into a spec. Errors: those of `llama_spec`."""
    spec = llama_spec(config)
    return replace(spec, layers=tuple(map(_layer_names, range(spec.n_layers))))


def _layer_names(index: int) -> LayerNames:
    attention = f"model.layers.{index}.self_attn"
    norms = (f"{attention}.q_norm", f"{attention}.k_norm")
    return replace(qwen_layer_names(index), head_norms=norms)
