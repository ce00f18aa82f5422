"""The tensors that a model's configuration asks for in MLC's files."""

from __future__ import annotations

from py_engine.config import ChatConfig
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.encoder_parameters import encoder_parameters
from py_engine.models.registry import ENCODERS, decoder_family, encoder_family
from py_engine.weights.formats import weight_format
from py_engine.weights.parameters import Parameter, layer_names
from py_engine.weights.plan import WeightSlot, weight_slots


def parameters_and_slots(config: ChatConfig) -> tuple[tuple[Parameter, ...], list[WeightSlot]]:
    """Return a model's parameters and the tensors that they are made of."""
    if config.model_type in ENCODERS:
        encoders = encoder_family(config)
        encoder = encoders.spec(config)
        parameters, n_layers = encoder_parameters(encoder), encoder.n_layers
        table = encoders.names["mlc"]
    else:
        decoders = decoder_family(config)
        decoder = decoders.spec(config)
        parameters, n_layers = decoder_parameters(decoder), decoder.n_layers
        table = decoders.names["mlc"]
    names = layer_names(table, n_layers)
    return parameters, list(weight_slots(parameters, names, weight_format(config)).values())


def slots_of(config: ChatConfig) -> list[WeightSlot]:
    """Return the tensors of a model."""
    return parameters_and_slots(config)[1]
