"""Gemma: Llama with GELU, scaled embeddings, a tied head, and norms that scale by 1 + w."""

from __future__ import annotations

from dataclasses import replace

from py_engine.config import ChatConfig
from py_engine.models.common import read_activation, with_defaults
from py_engine.models.family import Family
from py_engine.models.llama import LLAMA_NAMES, LLAMA_SPELLINGS, llama_spec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.parameters import FileKind, NameTable

DEFAULT_HEAD_DIM = 256


def gemma_spec(config: ChatConfig) -> DecoderSpec:
    """Turn the configuration of a Gemma model into a spec. Errors: those of `llama_spec`."""
    filled = with_defaults(config, tie_word_embeddings=True)
    spec = llama_spec(filled, default_head_dim=DEFAULT_HEAD_DIM)
    names = ("hidden_activation", "hidden_act")
    activation = read_activation(config.model_fields(), names, "gelu_pytorch_tanh")
    return replace(
        spec,
        # "gelu" stands in old files of models that were trained with its approximation.
        mlp=replace(spec.mlp, activation="gelu_tanh" if activation == "gelu" else activation),
        embedding_scale=spec.hidden_size**0.5,
    )


def shifted_norms(table: NameTable) -> NameTable:
    """Return a table of files whose norms lack the 1 that is added to their weights.

    Those of Hugging Face do; MLC's files have it already.
    """
    return {
        role: replace(stored, transform="add_one") if role.endswith("norm") else stored
        for role, stored in table.items()
    }


GEMMA_NAMES: dict[FileKind, NameTable] = {
    "mlc": LLAMA_NAMES["mlc"],
    "hf": shifted_norms(LLAMA_NAMES["hf"]),
}

GEMMA = Family(gemma_spec, GEMMA_NAMES, LLAMA_SPELLINGS)
