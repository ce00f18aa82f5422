"""Converts a model of any kind of files to MLC's format."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.errors import ConversionError, MissingFileError
from py_engine.json_fields import JsonFields
from py_engine.models.model_plan import parameter_names
from py_engine.models.registry import ModelParameters, model_parameters
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import Checkpoint, open_checkpoint
from py_engine.weights.formats import float_format, quantization_of, require_known
from py_engine.weights.hf_config import tokenizer_info
from py_engine.weights.host_weights import HostWeights
from py_engine.weights.mlc_writer import SHARD_BYTES, MlcWriter, write_json, write_manifest
from py_engine.weights.parameters import (
    MatrixParameter,
    Parameter,
    Stored,
    VectorParameter,
    stored_blocks,
)
from py_engine.weights.quantization import (
    F32,
    StoredTensor,
    bf16_from_f32,
    stored_floats,
    stored_matrix,
)

_TOKENIZER_FILE = "tokenizer.json"
_F32_ROLES = (".delta.gates",)
"""What MLC stores in f32 in models of all formats."""

_HEAD_COPIES = frozenset(("gpt2",))
"""Families of which MLC stores the head even where it is the embedding table."""


def convert_model(
    source: Path,
    target: Path,
    quantization: str,
    *,
    conv_template: Mapping[str, Any] | None = None,
    context_window_size: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the model in `source` to `target` as an MLC model.

    `source` is a folder of Hugging Face's or of MLC's files, or a GGUF file. `target` is made if
    needed; its files of the same names are replaced. The conversation template (MLC's
    `conv_template` object) defaults to ChatML; a chat template of the tokenizer's files is copied
    and goes before it. One matrix is in memory at a time.
    Errors: UnknownQuantizationError, UnknownArchitectureError, UnsupportedModelConfigError,
    MissingFileError, ModelFileFormatError, TruncatedFileError, MissingTensorError,
    TensorShapeError, ConversionError.
    """
    require_known(quantization, "quantization")
    if not source.exists():
        raise MissingFileError(f"{source} does not exist. Give a model's folder, or a GGUF file.")
    given = {"conv_template": conv_template, "context_window_size": context_window_size}
    asyncio.run(_convert(source, target, quantization, given, shard_bytes))


async def _convert(
    source: Path, target: Path, quantization: str, given: Mapping[str, Any], shard_bytes: int
) -> None:
    checkpoint = await open_checkpoint(FolderSource(source))
    options = {name: value for name, value in given.items() if value is not None}
    target.mkdir(parents=True, exist_ok=True)
    files = await _copy_tokenizer(checkpoint, target)
    config = {**checkpoint.config_json, **options, "tokenizer_files": files}
    config["prefill_chunk_size"] = _chunk(config)
    if _TOKENIZER_FILE in files:
        tokenizer = await checkpoint.tokenizer_source.read_json(_TOKENIZER_FILE)
        config["tokenizer_info"] = tokenizer_info(JsonFields(tokenizer, _TOKENIZER_FILE))
    await write_model(checkpoint, config, target, quantization, shard_bytes=shard_bytes)
    write_manifest(target)


async def _copy_tokenizer(checkpoint: Checkpoint, target: Path) -> list[str]:
    """Copy the tokenizer's files, and return the names of those there are."""
    found = []
    for name in checkpoint.config_json.get("tokenizer_files", ()):
        source = checkpoint.tokenizer_source
        is_binary = name.endswith(".model")
        try:
            data = await (source.read_bytes(name) if is_binary else source.read_text(name))
        except MissingFileError:
            continue
        (target / name).write_bytes(data if is_binary else data.encode())
        found.append(name)
    return found


def _chunk(config: Mapping[str, Any]) -> int:
    """Return the size of a prefill chunk, which is not above that of the context."""
    context, chunk = int(config["context_window_size"]), int(config["prefill_chunk_size"])
    return min(chunk, context) if context > 0 else chunk


async def write_model(
    checkpoint: Checkpoint,
    config_json: Mapping[str, Any],
    target: Path,
    quantization: str,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `mlc-chat-config.json`, weights and their index into the folder `target`.

    Errors: as `convert_model`.
    """
    written = {**config_json, "quantization": quantization}
    config = ChatConfig.from_json(written, file=checkpoint.config_file)
    model = model_parameters(config)
    writer = MlcWriter(target, shard_bytes)
    weights = HostWeights(checkpoint, parameter_names(checkpoint, config, model))
    for parameter in model.parameters:
        values = await weights.read(parameter)
        _require_fits(parameter.role, values, quantization)
        for role in written_roles(parameter.role, model, config):
            stored = model.names["mlc"][role]
            for tensor in stored_parameter(parameter, values, stored, quantization):
                writer.add(tensor)
            writer.n_weights += values.size
    writer.finish()
    write_json(target / CHAT_CONFIG_FILE, written)


def written_roles(role: str, model: ModelParameters, config: ChatConfig) -> tuple[str, ...]:
    """Return the roles that a parameter is written for: the head may be a copy of the table."""
    is_tied = all(parameter.role != "lm_head" for parameter in model.parameters)
    has_copy = role == "embedding" and is_tied and config.model_type in _HEAD_COPIES
    return (role, "lm_head") if has_copy else (role,)


def stored_parameter(
    parameter: Parameter, values: F32, stored: Stored, quantization: str
) -> Iterator[StoredTensor]:
    """Yield the tensors that MLC stores a parameter in, which are called as `stored` says."""
    begin = 0
    for block in stored_blocks(parameter, stored):
        part = values[begin : begin + block.size]
        if isinstance(parameter, MatrixParameter):
            yield from _stored_matrix(block.name, part, parameter.role, quantization)
        else:
            yield _stored_vector(parameter, block.name, part, quantization)
        begin += block.size


def _stored_matrix(name: str, values: F32, role: str, quantization: str) -> Iterator[StoredTensor]:
    used = quantization_of(quantization, role)
    if used is None:
        yield _stored_floats(f"{name}.weight", values, quantization)
        return
    for tensor in stored_matrix(name, values, used.format):
        is_transposed = used.is_transposed(role)
        yield replace(tensor, data=tensor.data.T.copy()) if is_transposed else tensor


def _stored_vector(
    parameter: VectorParameter, name: str, values: F32, quantization: str
) -> StoredTensor:
    if parameter.role.endswith(_F32_ROLES):
        return stored_floats(name, values, "q0f32")
    shape = parameter.stored_shape
    return _stored_floats(name, values if shape is None else values.reshape(shape), quantization)


def _stored_floats(name: str, values: F32, quantization: str) -> StoredTensor:
    if quantization == "q0bf16":
        return StoredTensor(name, "bfloat16", "raw", bf16_from_f32(values))
    return stored_floats(name, values, float_format(quantization))


def _require_fits(role: str, values: F32, quantization: str) -> None:
    """Refuse weights that the format cannot hold, and what is no number."""
    kind = np.float16 if float_format(quantization) == "q0f16" else np.float32
    largest = float(np.max(np.abs(values)))
    if not largest < float(np.finfo(kind).max):
        raise ConversionError(
            f"{role}: its largest weight is {largest:g}, too large for {quantization}. "
            "Convert to a format with f32 in its name, or use an undamaged checkpoint."
        )
