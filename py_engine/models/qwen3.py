"""Qwen 3: Llama with an RMSNorm over each head of queries and keys before RoPE."""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.kernels.attention_shape import QkNorm
from py_engine.models.family import Family
from py_engine.models.llama import LLAMA_SPELLINGS, llama_spec
from py_engine.models.qwen2 import QWEN_NAMES, qwen_window_defaults
from py_engine.models.spec import DecoderSpec

DEFAULT_HEAD_DIM = 128


def qwen3_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Qwen 3 model into a spec. Errors: those of `llama_spec`."""
    spec = llama_spec(qwen_window_defaults(config), default_head_dim=DEFAULT_HEAD_DIM)
    return replace(spec, heads=replace(spec.heads, qk_norm=QkNorm("head_rms", spec.norm.eps)))


QWEN3 = Family(qwen3_spec, QWEN_NAMES, LLAMA_SPELLINGS)
