"""A family of models: how its configuration becomes a spec, and what files call its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from py_engine.config import ChatConfig
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.parameters import FileKind, NameTable, Spelling

Spec = TypeVar("Spec", DecoderSpec, EncoderSpec)


@dataclass(frozen=True)
class Family(Generic[Spec]):
    """One architecture.

    `names` has a table of patterns for MLC's and for Hugging Face's files (GGUF's names are the
    same for all families), `spellings` how some of Hugging Face's checkpoints differ from it.
    """

    spec: Callable[[ChatConfig], Spec]
    names: Mapping[FileKind, NameTable]
    spellings: tuple[Spelling, ...] = ()
