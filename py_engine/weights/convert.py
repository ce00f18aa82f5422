"""Converts a Hugging Face model of the Llama family to MLC's format."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.errors import ConversionError, TensorShapeError
from py_engine.models.registry import decoder_spec
from py_engine.models.spec import DecoderSpec
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.formats import parse_weight_format
from py_engine.weights.hf_config import chat_config_json, write_json
from py_engine.weights.mlc_writer import SHARD_BYTES, count_weights, write_tensors
from py_engine.weights.plan import matrices, norms
from py_engine.weights.quantization import F32, StoredTensor, stored_floats, stored_matrix

ReadTensor = Callable[[str], F32]

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""MLC's matrices that are several of a checkpoint, stacked by rows in this order."""


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
    copied and goes before it.
    Errors: UnknownQuantizationError, UnknownArchitectureError, UnsupportedModelConfigError,
    MissingFileError, MissingTensorError, TensorShapeError, ConversionError.
    """
    parse_weight_format(quantization, "quantization")
    config_json = chat_config_json(
        source,
        quantization,
        conv_template=conv_template,
        context_window_size=context_window_size,
        prefill_chunk_size=prefill_chunk_size,
    )
    checkpoint = Checkpoint(source)
    target.mkdir(parents=True, exist_ok=True)
    write_model(target, config_json, checkpoint.read, shard_bytes=shard_bytes)
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
    spec = decoder_spec(ChatConfig.from_json(config_json))
    shapes = [(matrix.rows, matrix.columns) for matrix in matrices(spec)]
    n_weights = count_weights([*shapes, *((spec.hidden_size,) for _ in norms(spec))])
    write_tensors(target, stored_tensors(spec, read), n_weights, shard_bytes)
    write_json(target / CHAT_CONFIG_FILE, config_json)


def stored_tensors(spec: DecoderSpec, read: ReadTensor) -> Iterator[StoredTensor]:
    """Yield every tensor of a model as MLC stores it, one matrix in memory at a time."""
    for matrix in matrices(spec):
        weight = np.concatenate([read(name) for name in checkpoint_names(matrix.name)])
        _check(matrix.name, weight, (matrix.rows, matrix.columns), spec)
        yield from stored_matrix(matrix.name, weight, spec.weight_format)
    for norm in norms(spec):
        weight = read(f"{norm}.weight")
        _check(norm, weight, (spec.hidden_size,), spec)
        yield stored_floats(f"{norm}.weight", weight, spec.weight_format)


def checkpoint_names(name: str) -> list[str]:
    """Return the checkpoint's tensors that make up one of MLC's matrices, in the order of rows."""
    module, _, last = name.rpartition(".")
    if last not in _FUSED:
        return [f"{name}.weight"]
    return [f"{module}.{part}.weight" for part in _FUSED[last]]


def _check(name: str, weight: F32, shape: tuple[int, ...], spec: DecoderSpec) -> None:
    if weight.shape != shape:
        raise TensorShapeError(
            f"{name}: the checkpoint's tensor has shape {list(weight.shape)}, but config.json asks "
            f"for {list(shape)}. Use config.json and weights of the same model."
        )
    limit = float(np.finfo(np.float16 if "f16" in spec.weight_format else np.float32).max)
    largest = float(np.max(np.abs(weight)))
    if not largest < limit:
        raise ConversionError(
            f"{name}: its largest weight is {largest:g}, too large for {spec.weight_format}. "
            "Convert to a format with f32 in its name, or use an undamaged checkpoint."
        )
