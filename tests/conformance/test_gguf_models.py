"""Models as GGUF files: their specs and names, and logits equal to transformers'."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.encoder_parameters import encoder_parameters
from py_engine.models.registry import decoder_spec, encoder_spec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.gguf import GgufFile, read_gguf
from py_engine.weights.gguf_config import gguf_config_json
from py_engine.weights.gguf_names import gguf_names
from py_engine.weights.parameters import MatrixParameter, Parameter, layer_names
from tests.conformance.cases import CASES, CONTEXT, PREFILL_CHUNK_SIZE, Case, case_named
from tests.conformance.encoder_recipe import ENCODER_CASES, encoder_case, make_encoder_weights
from tests.conformance.gguf_models import gguf_model, is_expressible, model_bytes
from tests.support.memory_source import MemorySource

CHAT_OPTS = {"prefill_chunk_size": PREFILL_CHUNK_SIZE}
NAMES = [case.name for case in CASES if is_expressible(case.config)]


def read(case: Case) -> GgufFile:
    data = gguf_model(case, 0, lambda name: "F32")
    return asyncio.run(read_gguf(MemorySource({"m.gguf": data}), "m.gguf"))


def flat(value: Any) -> list[Any]:
    """Return the numbers and texts in nested data classes."""
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        return [fields, *(item for name in fields for item in flat(getattr(value, name)))]
    if isinstance(value, tuple):
        return [item for each in value for item in flat(each)]
    return [value]


def spec_of(config: Case) -> DecoderSpec:
    data = {
        "model_type": config.family,
        "quantization": config.quantization,
        "model_config": config.config,
        "vocab_size": config.config["vocab_size"],
        "context_window_size": config.config.get("max_position_embeddings", CONTEXT),
    }
    return decoder_spec(ChatConfig.from_json(data, chat_opts=CHAT_OPTS))


@pytest.mark.parametrize("name", NAMES)
def test_a_gguf_file_says_the_same_as_config_json(name: str) -> None:
    case = case_named(name)
    config = ChatConfig.from_json(gguf_config_json(read(case)), chat_opts=CHAT_OPTS)
    for ours, theirs in zip(flat(decoder_spec(config)), flat(spec_of(case)), strict=True):
        # Numbers of metadata, and factors of RoPE, are f32.
        is_number = isinstance(theirs, float)
        assert ours == (pytest.approx(theirs, rel=1e-6) if is_number else theirs)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_found_under_its_name(name: str) -> None:
    case = case_named(name)
    spec = spec_of(case)
    check_names(case.family, read(case), decoder_parameters(spec), spec.n_layers)


@pytest.mark.parametrize("name", [case.name for case in ENCODER_CASES])
def test_an_encoders_file_says_the_same_and_has_every_parameter(name: str) -> None:
    case = encoder_case(name)
    data = model_bytes(case.config, make_encoder_weights(case), lambda name: "F32")
    file = asyncio.run(read_gguf(MemorySource({"m.gguf": data}), "m.gguf"))
    spec = encoder_spec(ChatConfig.from_json(gguf_config_json(file)))
    assert (spec.pooling, spec.normalize) == ("mean", True)
    config = case.config
    for ours, theirs in (
        (spec.n_layers, "num_hidden_layers"),
        (spec.hidden_size, "hidden_size"),
        (spec.intermediate_size, "intermediate_size"),
        (spec.n_heads, "num_attention_heads"),
        (spec.vocab_size, "vocab_size"),
        (spec.n_positions, "max_position_embeddings"),
        (spec.n_token_types, "type_vocab_size"),
        (spec.context_window_size, "max_position_embeddings"),
    ):
        assert ours == config[theirs]
    assert spec.layer_norm_eps == pytest.approx(config["layer_norm_eps"], rel=1e-6)
    check_names("bert", file, encoder_parameters(spec), spec.n_layers)


def check_names(
    family: str, file: GgufFile, parameters: Sequence[Parameter], n_layers: int
) -> None:
    """Check that the file has all parameters in their shapes, and nothing else."""
    names = layer_names(gguf_names(family, file.tensors), n_layers)
    used = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
    for parameter in parameters:
        is_matrix = isinstance(parameter, MatrixParameter)
        stored = names[parameter.role].names
        stored = tuple(f"{name}.weight" for name in stored) if is_matrix else stored
        shapes = [file.tensors[name].shape for name in stored]
        used.update(stored)
        if isinstance(parameter, MatrixParameter):
            assert sum(rows for rows, _ in shapes) == parameter.rows
            assert {columns for _, columns in shapes} == {parameter.columns}
        else:
            assert sum(int(np.prod(shape)) for shape in shapes) == parameter.size
    assert set(file.tensors) <= used
