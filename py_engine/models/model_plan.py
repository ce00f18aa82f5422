"""From a model's opened files to the plan of its weights."""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.gpu.types import Limits
from py_engine.models.registry import ModelParameters, model_parameters
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.gguf_names import gguf_names
from py_engine.weights.parameters import NameTable, fitting_names, layer_names
from py_engine.weights.plan import WeightPlan, plan_weights


def parameter_names(
    checkpoint: Checkpoint, config: ChatConfig, model: ModelParameters
) -> NameTable:
    """Return what a checkpoint calls the parameters of a model."""
    if checkpoint.kind == "gguf":
        table = gguf_names(config.model_type, checkpoint.tensors)
        return layer_names(table, model.n_layers)
    spellings = model.spellings if checkpoint.kind == "hf" else ()
    return fitting_names(model.names[checkpoint.kind], spellings, checkpoint.tensors)


def plan_model(checkpoint: Checkpoint, config: ChatConfig, limits: Limits) -> WeightPlan:
    """Plan the weights of the model of `checkpoint`, which `config` is the configuration of.

    Weights that are not quantised become as the configuration says.
    Errors: those of `model_parameters` and `plan_weights`.
    """
    model = model_parameters(config)
    names = parameter_names(checkpoint, config, model)
    return plan_weights(checkpoint, model.parameters, names, limits, config.quantization)
