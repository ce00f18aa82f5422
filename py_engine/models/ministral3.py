"""Ministral 3: Llama with YaRN, and queries that grow with their position."""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.kernels.attention_shape import QueryScaling
from py_engine.models.family import Family
from py_engine.models.llama import LLAMA_NAMES, LLAMA_SPELLINGS, llama_spec
from py_engine.models.rope import rope_settings
from py_engine.models.spec import DecoderSpec

DEFAULT_HEAD_DIM = 128


def ministral3_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Ministral 3 model into a spec. Errors: those of `llama_spec`.

    The growth is `llama_4_scaling_beta` in the object that describes RoPE.
    """
    spec = llama_spec(config, default_head_dim=DEFAULT_HEAD_DIM)
    rope = rope_settings(config.model_fields())
    beta = rope.scaling.number("llama_4_scaling_beta", 0.0, minimum=0)
    scaling = QueryScaling(beta, rope.original) if beta and rope.original else None
    return replace(spec, heads=replace(spec.heads, query_scaling=scaling))


MINISTRAL3 = Family(ministral3_spec, LLAMA_NAMES, LLAMA_SPELLINGS)
