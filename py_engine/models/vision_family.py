"""A family of vision towers: from configurations to specs, and what files call its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from py_engine.config import ChatConfig
from py_engine.json_fields import JsonFields
from py_engine.models.vision_spec import ImageProcessing, VisionSpec
from py_engine.weights.parameters import NameTable, Spelling


@dataclass(frozen=True)
class VisionFamily:
    """The towers of one architecture.

    `processing` reads `preprocessor_config.json`. `names` are patterns for Hugging Face's files,
    and `spellings` how some of them differ.
    """

    spec: Callable[[ChatConfig], VisionSpec]
    processing: Callable[[JsonFields, VisionSpec], ImageProcessing]
    names: NameTable
    spellings: tuple[Spelling, ...]
