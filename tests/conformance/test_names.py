"""Names of parameters against the checkpoints that transformers saves, for every model."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.registry import decoder_family
from py_engine.weights.parameters import (
    MatrixParameter,
    Parameter,
    Stored,
    fitting_names,
    layer_names,
    vector_tensors,
)
from tests.conformance.cases import CONTEXT
from tests.conformance.fixtures import fixture_names, load_fixture
from tests.conformance.recipe import Tensors


def chat_config(family: str, config: Mapping[str, Any]) -> ChatConfig:
    """Return a configuration that holds Hugging Face's fields as they are."""
    return ChatConfig.from_json(
        {
            "model_type": family,
            "quantization": "q4f16_1",
            "vocab_size": config["vocab_size"],
            "context_window_size": CONTEXT,
            "model_config": config,
        }
    )


def checkpoint_shape(parameter: Parameter, stored: Stored, tensors: Tensors) -> tuple[int, ...]:
    """Return the shape that a parameter's tensors make up."""
    if not isinstance(parameter, MatrixParameter):
        shapes = [tensors[name].shape for name in vector_tensors(parameter, stored)]
        assert parameter.stored_shape is None or shapes == [parameter.stored_shape]
        return (sum(map(prod, shapes)),)
    shapes = [tensors[f"{name}.weight"].shape for name in stored.names]
    if stored.transform == "transpose":
        shapes = [shape[::-1] for shape in shapes]
    (columns,) = {columns for _, columns in shapes}
    return (sum(rows for rows, _ in shapes), columns)


@pytest.mark.parametrize("name", fixture_names())
def test_a_checkpoint_has_every_parameter_and_nothing_else(name: str) -> None:
    fixture = load_fixture(name)
    config = chat_config(fixture.case.family, fixture.case.config)
    family = decoder_family(config)
    spec = family.spec(config)
    table = fitting_names(family.names["hf"], family.spellings, fixture.tensors)
    names = layer_names(table, spec.n_layers)
    found: set[str] = set()
    for parameter in decoder_parameters(spec):
        stored = names[parameter.role]
        if isinstance(parameter, MatrixParameter):
            wanted: tuple[int, ...] = (parameter.rows, parameter.columns)
            found |= {f"{matrix}.weight" for matrix in stored.names}
        else:
            wanted = (parameter.size,)
            found |= set(vector_tensors(parameter, stored))
        assert checkpoint_shape(parameter, stored, fixture.tensors) == wanted
    assert found == set(fixture.tensors)


@pytest.mark.parametrize("name", fixture_names())
def test_transforms_are_where_transformers_stores_otherwise(name: str) -> None:
    fixture = load_fixture(name)
    config = chat_config(fixture.case.family, fixture.case.config)
    family = decoder_family(config)
    names = layer_names(family.names["hf"], family.spec(config).n_layers)
    for stored in names.values():
        kinds = {
            fixture.tensors[tensor].kind
            for base in stored.names
            for tensor in (base, f"{base}.weight")
            if tensor in fixture.tensors
        }
        assert not kinds or (stored.transform == "add_one") == (kinds == {"shifted_norm"})
        assert not kinds or (stored.transform == "transpose") == (kinds == {"conv1d"})
