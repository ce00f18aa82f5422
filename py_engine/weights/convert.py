"""Converts a Hugging Face model to MLC's format."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.errors import ConversionError, TensorShapeError
from py_engine.kernels.formats import WeightFormat
from py_engine.models.registry import ENCODERS, ModelParameters, model_parameters
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.formats import parse_weight_format, weight_format
from py_engine.weights.hf_config import chat_config_json, hf_model_type, write_json
from py_engine.weights.hf_encoder import encoder_config_json, encoder_reader
from py_engine.weights.mlc_writer import SHARD_BYTES, count_weights, write_tensors
from py_engine.weights.parameters import (
    MatrixParameter,
    Parameter,
    Stored,
    Transform,
    vector_tensors,
)
from py_engine.weights.quantization import F32, StoredTensor, stored_floats, stored_matrix

ReadTensor = Callable[[str], F32]


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
    config = ChatConfig.from_json(config_json)
    model, form = model_parameters(config), weight_format(config)
    n_weights = count_weights([_shape(parameter) for parameter in model.parameters])
    write_tensors(target, stored_tensors(model, form, read), n_weights, shard_bytes)
    write_json(target / CHAT_CONFIG_FILE, config_json)


def stored_tensors(
    model: ModelParameters, weight_format: WeightFormat, read: ReadTensor
) -> Iterator[StoredTensor]:
    """Yield every tensor of a model as MLC stores it, one parameter in memory at a time."""
    for parameter in model.parameters:
        stored = model.names["hf"][parameter.role]
        values = _checked(_read(parameter, stored, read), parameter, stored, weight_format)
        names = model.names["mlc"][parameter.role].names
        heights = _blocks(parameter) if len(names) > 1 else (len(values),)
        blocks = np.split(values, np.cumsum(heights)[:-1])
        for name, block in zip(names, blocks, strict=True):
            if isinstance(parameter, MatrixParameter):
                yield from stored_matrix(name, block, weight_format)
            else:
                yield stored_floats(name, block, weight_format)


def _shape(parameter: Parameter) -> tuple[int, ...]:
    if isinstance(parameter, MatrixParameter):
        return (parameter.rows, parameter.columns)
    return (parameter.size,)


def _blocks(parameter: Parameter) -> tuple[int, ...]:
    if isinstance(parameter, MatrixParameter):
        return parameter.row_blocks
    return parameter.block_sizes


def _read(parameter: Parameter, stored: Stored, read: ReadTensor) -> F32:
    """Read the checkpoint's tensors of a parameter, and stack them as ours are."""
    if isinstance(parameter, MatrixParameter):
        names = tuple(f"{name}.weight" for name in stored.names)
    else:
        names = vector_tensors(parameter, stored)
    tensors = [
        _transformed(read(name), stored.transform_of(index), parameter)
        for index, name in enumerate(names)
    ]
    return np.concatenate(tensors)


def _transformed(values: F32, transform: Transform, parameter: Parameter) -> F32:
    """Bring a tensor into our order; see `Transform`."""
    if transform == "transpose":
        return values.T
    if transform == "add_one":
        return values + np.float32(1)
    if transform == "interleaved_heads":
        # (heads, q k v, head_dim, ...) to (q k v, heads, head_dim, ...)
        heads = values.reshape(-1, 3, parameter.head_dim or 1, *values.shape[1:])
        return heads.swapaxes(0, 1).reshape(values.shape)
    if transform == "rope_pairs":
        pairs = values.reshape(-1, (parameter.head_dim or 2) // 2, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)
    return values


def _checked(values: F32, parameter: Parameter, stored: Stored, weight_format: WeightFormat) -> F32:
    shape, names = _shape(parameter), " and ".join(stored.names)
    if values.shape != shape:
        raise TensorShapeError(
            f"{names}: the checkpoint's tensors have shape {list(values.shape)}, but "
            f"config.json asks for {list(shape)}. Use config.json and weights of the same model."
        )
    limit = float(np.finfo(np.float16 if "f16" in weight_format else np.float32).max)
    largest = float(np.max(np.abs(values)))
    if not largest < limit:
        raise ConversionError(
            f"{names}: its largest weight is {largest:g}, too large for {weight_format}. "
            "Convert to a format with f32 in its name, or use an undamaged checkpoint."
        )
    return values
