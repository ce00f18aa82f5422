"""The tensors that a model's configuration asks for in MLC's files."""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.models.registry import model_parameters
from py_engine.weights.formats import weight_format
from py_engine.weights.plan import WeightSlot, weight_slots


def slots_of(config: ChatConfig) -> list[WeightSlot]:
    """Return the tensors of a model."""
    model, form = model_parameters(config), weight_format(config)
    return list(weight_slots(model.parameters, model.names["mlc"], form).values())
