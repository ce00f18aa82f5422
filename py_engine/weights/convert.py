"""Converts a Hugging Face model of the Llama, Qwen or BERT family to MLC's format."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.errors import ConversionError, TensorShapeError
from py_engine.kernels.formats import WeightFormat
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.encoder_parameters import encoder_parameters
from py_engine.models.registry import ENCODERS, decoder_family, encoder_family
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.formats import parse_weight_format, weight_format
from py_engine.weights.hf_config import chat_config_json, hf_model_type, write_json
from py_engine.weights.hf_encoder import encoder_config_json, encoder_reader
from py_engine.weights.mlc_writer import SHARD_BYTES, count_weights, write_tensors
from py_engine.weights.parameters import MatrixParameter, VectorParameter, layer_names
from py_engine.weights.quantization import F32, StoredTensor, stored_floats, stored_matrix

ReadTensor = Callable[[str], F32]

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "c_attn": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "qkv": ("query", "key", "value"),
}
"""MLC's linear layers that are several of a checkpoint, stacked by rows in this order."""


@dataclass(frozen=True)
class Matrix:
    """A linear layer or an embedding table: `rows` outputs of `columns` inputs each."""

    name: str
    rows: int
    columns: int


@dataclass(frozen=True)
class TensorPlan:
    """What a model's files hold: matrices, and vectors by tensor name with their lengths."""

    weight_format: WeightFormat
    matrices: list[Matrix]
    vectors: dict[str, int]


def tensor_plan(config: ChatConfig) -> TensorPlan:
    """Return the tensors of a model. Raises the errors of its family, UnknownQuantizationError."""
    if config.model_type in ENCODERS:
        encoders = encoder_family(config)
        encoder = encoders.spec(config)
        names = layer_names(encoders.names["mlc"], encoder.n_layers)
        parameters = encoder_parameters(encoder)
    else:
        decoders = decoder_family(config)
        decoder = decoders.spec(config)
        names = layer_names(decoders.names["mlc"], decoder.n_layers)
        parameters = decoder_parameters(decoder)
    matrices = [
        Matrix(names[parameter.role].names[0], parameter.rows, parameter.columns)
        for parameter in parameters
        if isinstance(parameter, MatrixParameter)
    ]
    vectors = {
        names[parameter.role].names[0]: parameter.size
        for parameter in parameters
        if isinstance(parameter, VectorParameter)
    }
    return TensorPlan(weight_format(config), matrices, vectors)


def convert_model(
    source: Path,
    target: Path,
    quantization: str,
    *,
    conv_template: Mapping[str, Any] | None = None,
    context_window_size: int | None = None,
    prefill_chunk_size: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the Hugging Face model in `source` to `target` as an MLC model.

    `target` is made if needed; its files of the same names are replaced. The conversation template
    (MLC's `conv_template` object) defaults to ChatML; a chat template of the tokenizer's files is
    copied and goes before it. An embedding model has none.
    Errors: UnknownQuantizationError, UnknownArchitectureError, UnsupportedModelConfigError,
    MissingFileError, MissingTensorError, TensorShapeError, ConversionError.
    """
    parse_weight_format(quantization, "quantization")
    is_encoder = hf_model_type(source) in ENCODERS
    if is_encoder:
        config_json = encoder_config_json(source, quantization, context_window_size)
    else:
        config_json = chat_config_json(
            source,
            quantization,
            conv_template=conv_template,
            context_window_size=context_window_size,
            prefill_chunk_size=prefill_chunk_size,
        )
    checkpoint = Checkpoint(source)
    read = encoder_reader(checkpoint) if is_encoder else checkpoint.read
    target.mkdir(parents=True, exist_ok=True)
    write_model(target, config_json, read, shard_bytes=shard_bytes)
    for name in config_json["tokenizer_files"]:
        shutil.copyfile(source / name, target / name)


def write_model(
    target: Path,
    config_json: Mapping[str, Any],
    read: ReadTensor,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `mlc-chat-config.json`, weights and index; `read(name)` gives a checkpoint's tensor.

    Errors: as `convert_model`.
    """
    plan = tensor_plan(ChatConfig.from_json(config_json))
    shapes = [(matrix.rows, matrix.columns) for matrix in plan.matrices]
    n_weights = count_weights([*shapes, *((size,) for size in plan.vectors.values())])
    write_tensors(target, stored_tensors(plan, read), n_weights, shard_bytes)
    write_json(target / CHAT_CONFIG_FILE, config_json)


def stored_tensors(plan: TensorPlan, read: ReadTensor) -> Iterator[StoredTensor]:
    """Yield every tensor of a model as MLC stores it, one matrix in memory at a time."""
    form = plan.weight_format
    for matrix in plan.matrices:
        weight = _read(f"{matrix.name}.weight", (matrix.rows, matrix.columns), form, read)
        yield from stored_matrix(matrix.name, weight, form)
    for name, size in plan.vectors.items():
        yield stored_floats(name, _read(name, (size,), form, read), form)


def checkpoint_names(name: str) -> list[str]:
    """Return the checkpoint's tensors that make up one of MLC's, in the order of rows."""
    path, _, part = name.rpartition(".")
    module, dot, layer = path.rpartition(".")
    return [f"{module}{dot}{source}.{part}" for source in _FUSED.get(layer, (layer,))]


def _read(name: str, shape: tuple[int, ...], weight_format: WeightFormat, read: ReadTensor) -> F32:
    """Read a tensor's parts, stack them, and check the result."""
    weight = np.concatenate([read(part) for part in checkpoint_names(name)])
    if weight.shape != shape:
        raise TensorShapeError(
            f"{name}: the checkpoint's tensor has shape {list(weight.shape)}, but config.json asks "
            f"for {list(shape)}. Use config.json and weights of the same model."
        )
    limit = float(np.finfo(np.float16 if "f16" in weight_format else np.float32).max)
    largest = float(np.max(np.abs(weight)))
    if not largest < limit:
        raise ConversionError(
            f"{name}: its largest weight is {largest:g}, too large for {weight_format}. "
            "Convert to a format with f32 in its name, or use an undamaged checkpoint."
        )
    return weight
