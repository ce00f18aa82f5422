"""The architectures there are: `model_type` of a configuration to the function that reads it."""

from __future__ import annotations

from collections.abc import Callable

from py_engine.config import ChatConfig
from py_engine.errors import UnknownArchitectureError
from py_engine.json_fields import shown
from py_engine.models.llama import llama_spec
from py_engine.models.spec import DecoderSpec

ARCHITECTURES: dict[str, Callable[[ChatConfig], DecoderSpec]] = {
    "llama": llama_spec,
    "mistral": llama_spec,
}


def decoder_spec(config: ChatConfig) -> DecoderSpec:
    """Return the spec of a model.

    Errors: UnknownArchitectureError when `model_type` is not known, and those of the family.
    """
    family = ARCHITECTURES.get(config.model_type)
    if family is None:
        raise UnknownArchitectureError(
            f"{config.file}: model_type is {shown(config.model_type)}, which is not a known "
            f"architecture. Known are {', '.join(sorted(ARCHITECTURES))}: choose such a model."
        )
    return family(config)
