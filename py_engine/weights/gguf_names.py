"""Names of a model's parameters in GGUF files: one table for all architectures.

llama.cpp's converters bring every family to the same names and conventions: norms that add one to
their weight are stored with it added (Gemma), linear layers as [out][in] (GPT-2), q, k and v of all
heads one after the other (GPT-NeoX). Only RoPE differs: some architectures rotate neighbours, and
the rows of their q and k are stored in that order.

Source: `MODEL_TENSOR` of PyPI's gguf 0.19.0, and llama.cpp's `conversion/`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from py_engine.weights.parameters import LAYER, NameTable, Stored, named

PAIRED_ROPE = frozenset(("llama", "ministral3"))
"""The `model_type`s whose q and k have their rows in pairs."""

_BLOCK = f"blk.{LAYER}"
_ROLES = f"layers.{LAYER}"

# Where files of one architecture differ, the alternatives, the usual one first.
_MATRICES: Mapping[str, tuple[Stored, ...]] = {
    "embedding": (named("token_embd"),),
    "positions": (named("position_embd"),),
    "token_types": (named("token_types"),),
    f"{_ROLES}.qkv": (
        named(f"{_BLOCK}.attn_q", f"{_BLOCK}.attn_k", f"{_BLOCK}.attn_v"),
        named(f"{_BLOCK}.attn_qkv"),
    ),
    f"{_ROLES}.output": (named(f"{_BLOCK}.attn_output"),),
    # Phi-3 has both in one tensor.
    f"{_ROLES}.gate_up": (
        named(f"{_BLOCK}.ffn_gate", f"{_BLOCK}.ffn_up"),
        named(f"{_BLOCK}.ffn_up"),
    ),
    f"{_ROLES}.up": (named(f"{_BLOCK}.ffn_up"),),
    f"{_ROLES}.down": (named(f"{_BLOCK}.ffn_down"),),
    "lm_head": (named("output"),),
}

_NORMS = {
    f"{_ROLES}.input_norm": f"{_BLOCK}.attn_norm",
    f"{_ROLES}.q_norm": f"{_BLOCK}.attn_q_norm",
    f"{_ROLES}.k_norm": f"{_BLOCK}.attn_k_norm",
    f"{_ROLES}.post_attention_norm": f"{_BLOCK}.post_attention_norm",
    f"{_ROLES}.mlp_norm": f"{_BLOCK}.ffn_norm",
    f"{_ROLES}.post_mlp_norm": f"{_BLOCK}.post_ffw_norm",
    "final_norm": "output_norm",
    "embedding_norm": "token_embd_norm",
    f"{_ROLES}.attention_output_norm": f"{_BLOCK}.attn_output_norm",
    f"{_ROLES}.mlp_output_norm": f"{_BLOCK}.layer_output_norm",
}


def gguf_names(model_type: str, tensors: Container[str]) -> NameTable:
    """Return the table of a model's file, given the names of the tensors in it."""
    table: dict[str, Stored] = {}
    for role, alternatives in _MATRICES.items():
        is_paired = role.endswith(".qkv") and model_type in PAIRED_ROPE
        choice = tuple(map(_paired, alternatives[:1])) if is_paired else alternatives
        for suffix in ("weight", "bias"):
            stored = _present(choice, suffix, tensors)
            if suffix == "weight":
                table[role] = stored
            else:
                table[f"{role}.bias"] = _with_suffix(stored, suffix)
    for role, name in _NORMS.items():
        table[role] = named(f"{name}.weight")
        table[f"{role}.bias"] = named(f"{name}.bias")
    return table


def _present(alternatives: tuple[Stored, ...], suffix: str, tensors: Container[str]) -> Stored:
    """Return the alternative whose tensors the first layer has; the usual one if it has none."""
    for stored in alternatives:
        names = _with_suffix(stored, suffix).names
        if all(name.replace(LAYER, "0") in tensors for name in names):
            return stored
    return alternatives[0]


def _with_suffix(stored: Stored, suffix: str) -> Stored:
    return replace(stored, names=tuple(f"{name}.{suffix}" for name in stored.names))


def _paired(stored: Stored) -> Stored:
    return replace(stored, transform="rope_pairs", transformed=(True, True, False))
