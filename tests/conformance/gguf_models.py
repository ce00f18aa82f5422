"""Hugging Face models as GGUF: metadata, names and layouts as llama.cpp's converters write them.

Source: llama.cpp's `conversion/*.py`; names are compared with PyPI's gguf where it is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from py_engine.weights.quantization import F32, bf16_from_f32
from tests.conformance.cases import Case
from tests.conformance.recipe import stored_tensors, stored_weights
from tests.support.gguf_file import FileTensor, gguf_bytes

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "ministral3": "mistral3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "olmo2": "olmo2",
    "phi3": "phi3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "stablelm": "stablelm",
    "gpt2": "gpt2",
    "phi": "phi2",
    "gpt_neox": "gptneox",
    "bert": "bert",
}
"""`general.architecture` by `model_type`."""

_NAMES = {
    "embed_tokens": "token_embd",
    "wte": "token_embd",
    "embed_in": "token_embd",
    "wpe": "position_embd",
    "lm_head": "output",
    "embed_out": "output",
    **dict.fromkeys(("norm", "ln_f", "final_layernorm", "final_layer_norm"), "output_norm"),
    **dict.fromkeys(("input_layernorm", "ln_1"), "attn_norm"),
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in ("q", "k", "v", "qkv")},
    **dict.fromkeys(("attn.c_attn", "attention.query_key_value"), "attn_qkv"),
    **dict.fromkeys(
        ("self_attn.o_proj", "self_attn.dense", "attn.c_proj", "attention.dense"), "attn_output"
    ),
    **{f"self_attn.{part}_norm": f"attn_{part}_norm" for part in ("q", "k")},
    **{f"self_attn.{part}_layernorm": f"attn_{part}_norm" for part in ("q", "k")},
    **dict.fromkeys(("ln_2", "pre_feedforward_layernorm"), "ffn_norm"),
    "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate_proj": "ffn_gate",
    **dict.fromkeys(
        ("mlp.up_proj", "mlp.gate_up_proj", "mlp.fc1", "mlp.c_fc", "mlp.dense_h_to_4h"), "ffn_up"
    ),
    **dict.fromkeys(("mlp.down_proj", "mlp.fc2", "mlp.c_proj", "mlp.dense_4h_to_h"), "ffn_down"),
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_POST_NORMS = ("gemma2", "gemma3_text", "olmo2")
_PREFIXES = ("model.", "transformer.", "gpt_neox.", "encoder.")
_LAYERS = ("layers.", "layer.", "h.")
_WITHOUT_ROPE = ("gpt2", "bert")


def gguf_name(model_type: str, name: str) -> str:
    """Return GGUF's name of a tensor of Hugging Face's file."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    block = ""
    for prefix in _LAYERS:
        if name.startswith(prefix):
            number, _, name = name.removeprefix(prefix).partition(".")
            block = f"blk.{number}."
    module, _, kind = name.rpartition(".")
    if module == "post_attention_layernorm":
        ours = "post_attention_norm" if model_type in _POST_NORMS else "ffn_norm"
    else:
        ours = _NAMES[module]
    return f"{block}{ours}.{kind}"


def gguf_weights(config: Mapping[str, Any], weights: Mapping[str, F32]) -> dict[str, F32]:
    """Return a model's weights under GGUF's names, as a converter lays them out."""
    model_type = config["model_type"]
    stacked = dict(_stacked_head_norms(weights))
    found: dict[str, F32] = {}
    for name, weight in stacked.items():
        ours = gguf_name(model_type, name)
        found[ours] = _converted(config, ours, weight)
    if config.get("tie_word_embeddings", model_type == "gpt2"):
        found.pop("output.weight", None)
    return found | _rope_tensors(config)


def _stacked_head_norms(weights: Mapping[str, F32]) -> Iterator[tuple[str, F32]]:
    """Yield the weights, those of the norms of single heads (StableLM 2 12B) as one."""
    heads: dict[str, list[F32]] = {}
    for name, weight in weights.items():
        module, is_of_head, _ = name.partition(".norms.")
        if is_of_head:
            heads.setdefault(f"{module}.weight", []).append(weight)
        else:
            yield name, weight
    for name, norms in heads.items():
        yield name, np.stack(norms)


def _converted(config: Mapping[str, Any], name: str, weight: F32) -> F32:
    model_type, n_heads = config["model_type"], config.get("num_attention_heads", 1)
    if model_type.startswith("gemma") and name.endswith("norm.weight"):
        return weight + np.float32(1)
    if model_type == "gpt2" and weight.ndim == 2 and name.startswith("blk."):
        return np.ascontiguousarray(weight.T)
    if model_type == "gpt_neox" and ".attn_qkv." in name:
        heads = weight.reshape(n_heads, 3, -1, *weight.shape[1:])
        return np.concatenate([heads[:, i].reshape(-1, *weight.shape[1:]) for i in range(3)])
    if ARCHITECTURES[model_type] in ("llama", "mistral3"):
        n_kv_heads = config.get("num_key_value_heads") or n_heads
        for part, count in (("attn_q", n_heads), ("attn_k", n_kv_heads)):
            if f".{part}." in name:
                halves = weight.reshape(count, 2, -1, *weight.shape[1:])
                return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
    return weight


def hf_weight(config: Mapping[str, Any], name: str, weight: F32) -> F32:
    """Undo for one tensor, by GGUF's name, what `gguf_weights` does to those of Llama and Gemma."""
    if config["model_type"].startswith("gemma") and name.endswith("norm.weight"):
        return weight - np.float32(1)
    if ARCHITECTURES[config["model_type"]] in ("llama", "mistral3"):
        counts = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
        for part, count in counts.items():
            if f".{part}." in name:
                pairs = weight.reshape(config[count], -1, 2, *weight.shape[1:])
                return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))
    return weight


def _head_dim(config: Mapping[str, Any]) -> int:
    width, n_heads = config["hidden_size"], config["num_attention_heads"]
    return int(config.get("head_dim") or width // n_heads)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of RoPE, wherever a configuration has them."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = rope.get("full_attention", rope)
    theta = config.get("rope_theta", config.get("rotary_emb_base", 10000.0))
    partial = config.get("partial_rotary_factor", config.get("rotary_pct", 1.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    original = config.get("original_max_position_embeddings")
    return {
        "rope_theta": theta,
        "partial_rotary_factor": partial,
        "original_max_position_embeddings": original,
        **rope,
        "rope_type": kind,
    }


def _rope_tensors(config: Mapping[str, Any]) -> dict[str, F32]:
    if config["model_type"] in _WITHOUT_ROPE:
        return {}
    rope = _rope(config)
    if rope["rope_type"] == "longrope":
        return {
            f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"], np.float32)
            for kind in ("long", "short")
        }
    if rope["rope_type"] != "llama3":
        return {}
    dim = _head_dim(config)
    low, high, factor = (rope[name] for name in ("low_freq_factor", "high_freq_factor", "factor"))
    found = []
    for i in range(0, dim, 2):
        turns = rope["original_max_position_embeddings"] * rope["rope_theta"] ** (-i / dim)
        smooth = min(max((turns / (2 * math.pi) - low) / (high - low), 0), 1)
        found.append(1 / ((1 - smooth) / factor + smooth))
    return {"rope_freqs.weight": np.array(found, np.float32)}


_FIELDS = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size", "n_embd"),
    "block_count": ("num_hidden_layers", "n_layer"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon"),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "use_parallel_residual": ("use_parallel_residual",),
}
_WINDOWED = ("gemma2", "gemma3_text", "phi3")


def gguf_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a model's configuration, without its tokenizer."""
    model_type = config["model_type"]
    fields: dict[str, Any] = {}
    for name, ours in _FIELDS.items():
        values = [config[each] for each in ours if config.get(each) is not None]
        if values:
            fields[name] = values[0]
    if model_type == "gpt2":
        fields.setdefault("feed_forward_length", 4 * config["n_embd"])
    if model_type not in _WITHOUT_ROPE:
        fields |= _rope_metadata(config)
    if model_type in _WINDOWED:
        fields["attention.sliding_window"] = config.get("sliding_window") or 0
    if "query_pre_attn_scalar" in config:
        # Not written by the converter, as it follows for all models that exist.
        fields["attention.scale"] = config["query_pre_attn_scalar"] ** -0.5
    if model_type == "gemma3_text":
        fields["attention.sliding_window_pattern"] = _window_pattern(config)
    architecture = ARCHITECTURES[model_type]
    scoped = {f"{architecture}.{name}": value for name, value in fields.items()}
    return {"general.architecture": architecture, **scoped}


def _window_pattern(config: Mapping[str, Any]) -> Any:
    if "layer_types" in config:
        return [kind == "sliding_attention" for kind in config["layer_types"]]
    return config["sliding_window_pattern"]


def _rope_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    rope = _rope(config)
    rotated = int(_head_dim(config) * rope["partial_rotary_factor"])
    fields = {"rope.dimension_count": rotated, "rope.freq_base": float(rope["rope_theta"])}
    if config["model_type"] == "gemma3_text":
        local = (config.get("rope_parameters") or {}).get("sliding_attention", {})
        theta = local.get("rope_theta", config.get("rope_local_base_freq", 10000.0))
        fields["rope.freq_base_swa"] = float(theta)
    if rope["rope_type"] in ("linear", "yarn"):
        fields["rope.scaling.type"] = rope["rope_type"]
        fields["rope.scaling.factor"] = float(rope["factor"])
    if rope["rope_type"] == "longrope":
        fields["rope.scaling.type"] = "longrope"
        original = rope["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        attention = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
        fields["rope.scaling.attn_factor"] = attention
    if rope["original_max_position_embeddings"] and rope["rope_type"] in ("longrope", "yarn"):
        original = rope["original_max_position_embeddings"]
        fields["rope.scaling.original_context_length"] = original
    if rope["rope_type"] == "yarn":
        for name in ("beta_fast", "beta_slow"):
            fields[f"rope.scaling.yarn_{name}"] = float(rope[name])
        if config["model_type"] == "ministral3":
            fields["rope.scaling.yarn_log_multiplier"] = float(rope["mscale_all_dim"])
            fields["attention.temperature_scale"] = float(rope["llama_4_scaling_beta"])
    return fields


def is_expressible(config: Mapping[str, Any]) -> bool:
    """Tell whether a configuration has nothing that GGUF has no place for, or we do not read."""
    has_window = bool(config.get("sliding_window")) and config.get("use_sliding_window", True)
    return not (
        (has_window and config["model_type"] not in _WINDOWED)
        or (config["model_type"] == "gemma2" and config["attn_logit_softcapping"] is None)
        or config.get("scale_attn_by_inverse_layer_idx", False)
        or config["model_type"] == "qwen3_5_text"
    )


def gguf_model(case: Case, seed: int, dtype_of: Callable[[str], str]) -> bytes:
    """Return a case's model as a GGUF file; `dtype_of` gives the type of each matrix by its name.

    The weights are those that the case's own format stores. The vocabulary is made of numbers.
    """
    weights = stored_weights(case, stored_tensors(case.name), seed)
    return model_bytes(case.config, weights, dtype_of)


def model_bytes(
    config: Mapping[str, Any], weights: Mapping[str, F32], dtype_of: Callable[[str], str]
) -> bytes:
    """Return a model with these weights, by their names in Hugging Face's files, as a GGUF file."""
    return gguf_bytes(
        {**gguf_metadata(config), **numbered_vocabulary(config["vocab_size"])},
        {
            name: encoded(weight, dtype_of(name) if weight.ndim == 2 else "F32")
            for name, weight in gguf_weights(config, weights).items()
        },
    )


def encoded(weight: F32, dtype: str) -> FileTensor:
    """Return a tensor as a file holds it, in one of the plain types."""
    is_bf16 = dtype == "BF16"
    data = bf16_from_f32(weight) if is_bf16 else weight.astype({"F32": "<f4", "F16": "<f2"}[dtype])
    return FileTensor(weight.shape, dtype, data.tobytes())


def numbered_vocabulary(size: int) -> dict[str, Any]:
    """Return the metadata of a vocabulary of numbers."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [str(index) for index in range(size)],
    }
