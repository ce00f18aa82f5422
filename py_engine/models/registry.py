"""The architectures there are: `model_type` of a configuration to the function that reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from py_engine.config import ChatConfig
from py_engine.errors import UnknownArchitectureError
from py_engine.json_fields import shown
from py_engine.models.bert import bert_spec
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.llama import llama_spec
from py_engine.models.qwen2 import qwen2_spec
from py_engine.models.qwen3 import qwen3_spec
from py_engine.models.spec import DecoderSpec

ARCHITECTURES: dict[str, Callable[[ChatConfig], DecoderSpec]] = {
    "llama": llama_spec,
    "mistral": llama_spec,
    "qwen2": qwen2_spec,
    "qwen3": qwen3_spec,
}
"""Language models."""

ENCODERS: dict[str, Callable[[ChatConfig], EncoderSpec]] = {"bert": bert_spec}
"""Embedding models."""

Spec = TypeVar("Spec")


def decoder_spec(config: ChatConfig) -> DecoderSpec:
    """Return the spec of a language model.

    Errors: UnknownArchitectureError when `model_type` is not known, and those of the family.
    """
    return _read(config, ARCHITECTURES, "architecture of a language model")


def encoder_spec(config: ChatConfig) -> EncoderSpec:
    """Return the spec of an embedding model.

    Errors: UnknownArchitectureError when `model_type` is not known, and those of the family.
    """
    return _read(config, ENCODERS, "architecture of an embedding model")


def _read(
    config: ChatConfig, families: Mapping[str, Callable[[ChatConfig], Spec]], what: str
) -> Spec:
    family = families.get(config.model_type)
    if family is None:
        raise UnknownArchitectureError(
            f"{config.file}: model_type is {shown(config.model_type)}, which is not a known "
            f"{what}. Known are {', '.join(sorted(families))}: choose such a model."
        )
    return family(config)
