"""The architectures there are: `model_type` of a configuration to its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from py_engine.config import ChatConfig
from py_engine.errors import UnknownArchitectureError
from py_engine.json_fields import shown
from py_engine.models.bert import BERT
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.family import Family
from py_engine.models.gemma import GEMMA
from py_engine.models.gemma2 import GEMMA2
from py_engine.models.gemma3 import GEMMA3
from py_engine.models.gpt2 import GPT2
from py_engine.models.gpt_neox import GPT_NEOX
from py_engine.models.llama import LLAMA
from py_engine.models.phi import PHI, PHI_MSFT
from py_engine.models.qwen2 import QWEN2
from py_engine.models.qwen3 import QWEN3
from py_engine.models.spec import DecoderSpec
from py_engine.models.stablelm import STABLELM

ARCHITECTURES: dict[str, Family[DecoderSpec]] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "gemma3_text": GEMMA3,
    "stablelm": STABLELM,
    "gpt2": GPT2,
    "phi": PHI,
    "phi-msft": PHI_MSFT,
    "gpt_neox": GPT_NEOX,
}
"""Language models."""

ENCODERS: dict[str, Family[EncoderSpec]] = {"bert": BERT}
"""Embedding models."""

Kind = TypeVar("Kind")


def decoder_family(config: ChatConfig) -> Family[DecoderSpec]:
    """Return the family of a language model. Raises UnknownArchitectureError."""
    return _known(config, ARCHITECTURES, "architecture of a language model")


def decoder_spec(config: ChatConfig) -> DecoderSpec:
    """Return the spec of a language model.

    Errors: UnknownArchitectureError when `model_type` is not known, and those of the family.
    """
    return decoder_family(config).spec(config)


def encoder_family(config: ChatConfig) -> Family[EncoderSpec]:
    """Return the family of an embedding model. Raises UnknownArchitectureError."""
    return _known(config, ENCODERS, "architecture of an embedding model")


def encoder_spec(config: ChatConfig) -> EncoderSpec:
    """Return the spec of an embedding model.

    Errors: UnknownArchitectureError when `model_type` is not known, and those of the family.
    """
    return encoder_family(config).spec(config)


def _known(config: ChatConfig, table: Mapping[str, Kind], what: str) -> Kind:
    found = table.get(config.model_type)
    if found is None:
        raise UnknownArchitectureError(
            f"{config.file}: model_type is {shown(config.model_type)}, which is not a known "
            f"{what}. Known are {', '.join(sorted(table))}: choose such a model."
        )
    return found
