"""From a model's opened files to the plan of its weights."""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.config import ChatConfig
from py_engine.errors import MissingFileError
from py_engine.gpu.types import Limits
from py_engine.json_fields import JsonFields
from py_engine.models.registry import VISION, ModelParameters, model_parameters
from py_engine.models.vision_parameters import vision_parameters
from py_engine.models.vision_spec import ImageProcessing, VisionSpec
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.gguf_names import gguf_names
from py_engine.weights.parameters import NameTable, fitting_names, layer_names
from py_engine.weights.plan import WeightPlan, plan_weights

PREPROCESSOR_FILE = "preprocessor_config.json"
"""What Hugging Face's image processors are configured by."""


def parameter_names(
    checkpoint: Checkpoint, config: ChatConfig, model: ModelParameters
) -> NameTable:
    """Return what a checkpoint calls the parameters of a model."""
    if checkpoint.kind == "gguf":
        table = gguf_names(config.model_type, checkpoint.tensors)
        return layer_names(table, model.n_layers)
    spellings = model.spellings if checkpoint.kind == "hf" else ()
    return fitting_names(model.names[checkpoint.kind], spellings, checkpoint.tensors)


@dataclass(frozen=True)
class TowerPlan:
    """The vision tower of a checkpoint, and what the checkpoint calls its parameters."""

    spec: VisionSpec
    processing: ImageProcessing
    names: NameTable


async def find_tower(checkpoint: Checkpoint, config: ChatConfig) -> TowerPlan | None:
    """Return the vision tower of a model; None where the architecture or the files have none.

    Errors: those of the family, and of the source for a `preprocessor_config.json` that is there.
    """
    family = VISION.get(config.model_type)
    if family is None or checkpoint.kind != "hf" or "vision_config" not in config.model_fields():
        return None
    table = fitting_names(family.names, family.spellings, checkpoint.tensors)
    if next(iter(table.values())).names[0] not in checkpoint.tensors:
        return None
    spec = family.spec(config)
    try:
        data = await checkpoint.source.read_json(PREPROCESSOR_FILE)
    except MissingFileError:
        data = {}
    processing = family.processing(JsonFields(data, PREPROCESSOR_FILE), spec)
    return TowerPlan(spec, processing, layer_names(table, spec.n_layers))


def plan_model(
    checkpoint: Checkpoint, config: ChatConfig, limits: Limits, tower: TowerPlan | None = None
) -> WeightPlan:
    """Plan the weights of the model of `checkpoint`, which `config` is the configuration of.

    Weights that are not quantised become as the configuration says, but for those of the `tower`.
    Errors: those of `model_parameters` and `plan_weights`.
    """
    model = model_parameters(config)
    parameters, names = model.parameters, parameter_names(checkpoint, config, model)
    if tower is not None:
        parameters += vision_parameters(tower.spec)
        names = {**names, **tower.names}
    return plan_weights(checkpoint, parameters, names, limits, config.quantization)
