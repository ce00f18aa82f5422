"""The public hyper-parameters of the catalogue's models, and what these models take on a GPU.

`model_shapes.json` has one entry for all models of the same shapes: `models` maps a record's id,
without quantisation and options, to the Hugging Face repository whose config.json has these values;
`parameters` is how many weights its language model has (tied heads counted once), by which the
values are checked. `config` is without what changes no size. Models that are not in the file
are those that the engine does not run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from py_engine.config import ChatConfig
from py_engine.models.memory_estimate import estimate_memory
from py_engine.models.memory_plan import MemoryPlan
from py_engine.tooling.steps import ROOT

MODEL_SHAPES = ROOT / "py_engine" / "tooling" / "model_shapes.json"

_MODEL_ID = re.compile(r"(?P<name>.+)-(?P<quantization>q\d\w+)-MLC(-\w+)?")


@dataclass(frozen=True)
class ModelShape:
    """One entry: a model's `config` (Hugging Face's names), and its number of `parameters`."""

    parameters: int
    config: Mapping[str, Any]


@cache
def model_shapes() -> Mapping[str, ModelShape]:
    """Return the shapes of all models, by the names that their records' ids begin with."""
    entries = json.loads(MODEL_SHAPES.read_text(encoding="utf-8"))
    return {
        name: ModelShape(entry["parameters"], entry["config"])
        for entry in entries
        for name in entry["models"]
    }


def record_config(record: Mapping[str, Any]) -> ChatConfig | None:
    """Return the configuration of a record's model; None for one whose shapes are not known.

    Its context is as the record's overrides have it, otherwise the model's longest.
    """
    found = _MODEL_ID.fullmatch(record["model_id"])
    shape = model_shapes().get(found["name"]) if found else None
    if found is None or shape is None:
        return None
    data = {
        "model_type": record["architecture"],
        "quantization": found["quantization"],
        "context_window_size": shape.config["max_position_embeddings"],
        "model_config": shape.config,
    }
    return ChatConfig.from_json(data, overrides=record.get("overrides"))


def required_megabytes(plan: MemoryPlan) -> int:
    """Return what stands as `vram_required_MB`: MB of 10^6 bytes with a full context."""
    return math.ceil(plan.in_full / 1e6)


def record_megabytes(record: Mapping[str, Any]) -> int | None:
    """Return `vram_required_MB` of a record as our planner has it; None if shapes are not known."""
    config = record_config(record)
    return None if config is None else required_megabytes(estimate_memory(config))
