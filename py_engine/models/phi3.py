"""Phi 3, 3.5 and 4 mini: Llama with LongRoPE, rotated in part in Phi 4 mini."""

from __future__ import annotations

from collections.abc import Mapping

from py_engine.models.family import Family
from py_engine.models.llama import LLAMA_NAMES, LLAMA_SPELLINGS, llama_spec
from py_engine.weights.parameters import FileKind, NameTable, linear_names, named, norm_names

_LAYER = "transformer.h.{i}"

PHI3_NAMES: Mapping[FileKind, NameTable] = {
    "mlc": {
        "embedding": named("transformer.embd"),
        **norm_names("layers.{i}.input_norm", f"{_LAYER}.ln"),
        **linear_names("layers.{i}.qkv", f"{_LAYER}.mixer.qkv_proj"),
        **linear_names("layers.{i}.output", f"{_LAYER}.mixer.out_proj"),
        **norm_names("layers.{i}.mlp_norm", f"{_LAYER}.post_attention_layernorm"),
        **linear_names("layers.{i}.gate_up", f"{_LAYER}.mlp.gate_up_proj"),
        **linear_names("layers.{i}.down", f"{_LAYER}.mlp.down_proj"),
        **norm_names("final_norm", "transformer.norm"),
        **linear_names("lm_head", "lm_head"),
    },
    # Hugging Face's files fuse what MLC fuses of Llama.
    "hf": LLAMA_NAMES["mlc"],
}

PHI3 = Family(llama_spec, PHI3_NAMES, LLAMA_SPELLINGS)
