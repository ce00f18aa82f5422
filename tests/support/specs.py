"""Specs of decoders from a `model_config`, and what follows from them."""

from __future__ import annotations

from typing import Any

from py_engine.config import ChatConfig
from py_engine.kernels.tuning import Tuning
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.decoder_steps import decoder_steps
from py_engine.models.registry import ARCHITECTURES, decoder_spec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.parameters import FileKind, NameTable, layer_names
from tests.support.layouts import uniform_layouts


def spec_of(
    family: str, model_config: dict[str, Any], *, context: int = 4096, **changes: Any
) -> DecoderSpec:
    """Return the spec of a family's model; `changes` are fields of its `model_config`."""
    data = {
        "model_type": family,
        "quantization": "q4f16_1",
        "vocab_size": 50000,
        "context_window_size": context,
        "sliding_window_size": -1,
        "prefill_chunk_size": 2048,
        "model_config": {**model_config, **changes},
    }
    return decoder_spec(ChatConfig.from_json(data))


def sizes_of(spec: DecoderSpec) -> dict[str, int]:
    """Return the elements of every vector, and the rows of every matrix, by role."""
    return {
        parameter.role: getattr(parameter, "rows", 0) or getattr(parameter, "size", 0)
        for parameter in decoder_parameters(spec)
    }


def names_of(family: str, kind: FileKind, spec: DecoderSpec) -> NameTable:
    """Return what files call the parameters of a model."""
    return layer_names(ARCHITECTURES[family].names[kind], spec.n_layers)


def dispatches_per_layer(spec: DecoderSpec) -> float:
    """Return how many dispatches a layer takes in decode."""
    steps = decoder_steps(
        spec, uniform_layouts(decoder_parameters(spec), "q4f16_1"), 1 << 27, Tuning(32)
    )
    around = 3 if spec.n_positions else 2  # embeddings and the head
    return (len(steps.next_logits.of_any) - around) / spec.n_layers
