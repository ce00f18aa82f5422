"""The architectures there are: `model_type` of a configuration to its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from py_engine.config import ChatConfig
from py_engine.errors import UnknownArchitectureError
from py_engine.json_fields import shown
from py_engine.models.bert import BERT
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.encoder_parameters import encoder_parameters
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.family import Family
from py_engine.models.gemma import GEMMA
from py_engine.models.gemma2 import GEMMA2
from py_engine.models.gemma3 import GEMMA3
from py_engine.models.gemma3_vision import GEMMA3_VISION
from py_engine.models.gpt2 import GPT2
from py_engine.models.gpt_neox import GPT_NEOX
from py_engine.models.llama import LLAMA
from py_engine.models.ministral3 import MINISTRAL3
from py_engine.models.olmo2 import OLMO2
from py_engine.models.phi import PHI, PHI_MSFT
from py_engine.models.phi3 import PHI3
from py_engine.models.qwen2 import QWEN2
from py_engine.models.qwen3 import QWEN3
from py_engine.models.qwen3_5 import QWEN3_5
from py_engine.models.spec import DecoderSpec
from py_engine.models.stablelm import STABLELM
from py_engine.models.vision_family import VisionFamily
from py_engine.weights.parameters import FileKind, NameTable, Parameter, Spelling, layer_names

ARCHITECTURES: dict[str, Family[DecoderSpec]] = {
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "gemma3_text": GEMMA3,
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "llama": LLAMA,
    "ministral": LLAMA,
    "ministral3": MINISTRAL3,
    "mistral": LLAMA,
    "olmo2": OLMO2,
    "phi": PHI,
    "phi-msft": PHI_MSFT,
    "phi3": PHI3,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "qwen3_5": QWEN3_5,
    "qwen3_5_text": QWEN3_5,
    "stablelm": STABLELM,
}
"""Language models."""

ENCODERS: dict[str, Family[EncoderSpec]] = {"bert": BERT}
"""Embedding models."""

VISION: dict[str, VisionFamily] = {"gemma3": GEMMA3_VISION, "gemma3_text": GEMMA3_VISION}
"""Vision towers of language models."""

Kind = TypeVar("Kind")


def decoder_family(config: ChatConfig) -> Family[DecoderSpec]:
    """Return the family of a language model. Raises UnknownArchitectureError."""
    return _known(config, ARCHITECTURES, "architecture of a language model")


def decoder_spec(config: ChatConfig) -> DecoderSpec:
    """Return the spec of a language model.

    Errors: UnknownArchitectureError when `model_type` is not known, and those of the family.
    """
    return replace(decoder_family(config).spec(config), kv_cache_dtype=config.kv_cache_dtype)


def encoder_family(config: ChatConfig) -> Family[EncoderSpec]:
    """Return the family of an embedding model. Raises UnknownArchitectureError."""
    return _known(config, ENCODERS, "architecture of an embedding model")


def encoder_spec(config: ChatConfig) -> EncoderSpec:
    """Return the spec of an embedding model.

    Errors: UnknownArchitectureError when `model_type` is not known, and those of the family.
    """
    return encoder_family(config).spec(config)


@dataclass(frozen=True)
class ModelParameters:
    """What a model is made of, and what Hugging Face's and MLC's files call it."""

    parameters: tuple[Parameter, ...]
    n_layers: int
    names: Mapping[FileKind, NameTable]
    spellings: tuple[Spelling, ...]


def model_parameters(config: ChatConfig) -> ModelParameters:
    """Return the parameters of a model of any kind.

    Errors: UnknownArchitectureError when `model_type` is not known, and those of the family.
    """
    if config.model_type in ENCODERS:
        encoders = encoder_family(config)
        encoder = encoders.spec(config)
        return _named(encoder_parameters(encoder), encoder.n_layers, encoders)
    decoders = decoder_family(config)
    decoder = decoders.spec(config)
    return _named(decoder_parameters(decoder), decoder.n_layers, decoders)


def _named(
    parameters: tuple[Parameter, ...],
    n_layers: int,
    family: Family[DecoderSpec] | Family[EncoderSpec],
) -> ModelParameters:
    names = {kind: layer_names(table, n_layers) for kind, table in family.names.items()}
    return ModelParameters(parameters, n_layers, names, family.spellings)


def _known(config: ChatConfig, table: Mapping[str, Kind], what: str) -> Kind:
    found = table.get(config.model_type)
    if found is None:
        raise UnknownArchitectureError(
            f"{config.file}: model_type is {shown(config.model_type)}, which is not a known "
            f"{what}. Known are {', '.join(sorted(table))}: choose such a model."
        )
    return found
