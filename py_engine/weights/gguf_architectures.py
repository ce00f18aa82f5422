"""GGUF's architectures as data: which fields of Hugging Face's configurations come from where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Names = Mapping[str, str]
"""Hugging Face's fields to names of metadata, without the architecture before them."""


@dataclass(frozen=True)
class Architecture:
    """How one architecture's metadata becomes a configuration.

    `metadata` names where fields come from; `constants` are fields that the architecture implies,
    and defaults of the former. `tensors` are fields that are true where the first layer has a
    tensor. Of every `window_period` layers all but the last see only a window; with two ropes
    these have the second.
    """

    model_type: str
    metadata: Names
    constants: Mapping[str, Any] = field(default_factory=dict)
    tensors: Names = field(default_factory=dict)
    window_period: int | None = None
    queries: QueryScale | None = None
    n_ropes: int = 1
    is_encoder: bool = False


@dataclass(frozen=True)
class QueryScale:
    """Gemma's `query_pre_attn_scalar` where a file has no scale: the size of a head.

    In the model of `wide_layers` layers it is the hidden size divided by the heads.
    """

    wide_layers: int


_SIZES: Names = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "head_dim": "attention.key_length",
}
_GPT2_SIZES: Names = {
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_inner": "feed_forward_length",
    "n_head": "attention.head_count",
    "n_positions": "context_length",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
}
_RMS: Names = {**_SIZES, "rms_norm_eps": "attention.layer_norm_rms_epsilon"}
_LAYER_NORM: Names = {**_SIZES, "layer_norm_eps": "attention.layer_norm_epsilon"}
_WINDOW: Names = {"sliding_window": "attention.sliding_window"}
_PARALLEL: Names = {"use_parallel_residual": "use_parallel_residual"}
_CAPS: Names = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_GEMMA = {"hidden_activation": "gelu_pytorch_tanh"}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(
        "llama",
        _RMS,
        tensors={"attention_bias": "attn_q.bias", "mlp_bias": "ffn_gate.bias"},
    ),
    "mistral3": Architecture("ministral3", _RMS),
    "qwen2": Architecture("qwen2", _RMS, {"use_sliding_window": False}),
    "qwen3": Architecture(
        "qwen3", _RMS, {"use_sliding_window": False}, tensors={"attention_bias": "attn_q.bias"}
    ),
    "olmo2": Architecture("olmo2", _RMS),
    "phi3": Architecture("phi3", {**_RMS, **_WINDOW}),
    "gemma": Architecture("gemma", _RMS, _GEMMA),
    "gemma2": Architecture(
        "gemma2",
        {**_RMS, **_WINDOW, **_CAPS},
        # The values of all there are, for files from before they were stated.
        {
            **_GEMMA,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        window_period=2,
        queries=QueryScale(wide_layers=46),
    ),
    "gemma3": Architecture(
        "gemma3_text",
        {**_RMS, **_WINDOW, **_CAPS},
        _GEMMA,
        window_period=6,
        queries=QueryScale(wide_layers=62),
        n_ropes=2,
    ),
    "stablelm": Architecture(
        "stablelm",
        {**_LAYER_NORM, **_PARALLEL},
        tensors={"use_qkv_bias": "attn_q.bias", "qk_layernorm": "attn_q_norm.weight"},
    ),
    "phi2": Architecture("phi", _LAYER_NORM, {"hidden_act": "gelu_new"}),
    "gptneox": Architecture(
        "gpt_neox",
        {**_LAYER_NORM, **_PARALLEL},
        {"hidden_act": "gelu", "use_parallel_residual": True},
        tensors={"attention_bias": "attn_qkv.bias"},
    ),
    "gpt2": Architecture("gpt2", _GPT2_SIZES, {"activation_function": "gelu_new"}, n_ropes=0),
    "bert": Architecture("bert", _LAYER_NORM, {"hidden_act": "gelu"}, n_ropes=0, is_encoder=True),
}
"""By `general.architecture`. Source: llama.cpp's `conversion/` and `llama_model::load_hparams`."""
