"""What is in a folder of MLC's files, read without the engine's loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.config import ChatConfig
from py_engine.models.registry import model_parameters
from py_engine.weights.convert import written_roles
from py_engine.weights.formats import Quantization, quantization_of
from py_engine.weights.parameters import MatrixParameter, Parameter, StoredBlock, stored_blocks
from py_engine.weights.quantization import f32_from_bf16


def mlc_shapes(config: ChatConfig) -> dict[str, tuple[int, ...]]:
    """Return the tensors that a model of this configuration has in MLC's files."""
    model, found = model_parameters(config), dict[str, tuple[int, ...]]()
    for parameter in model.parameters:
        for role in written_roles(parameter.role, model, config):
            for block in stored_blocks(parameter, model.names["mlc"][role]):
                found |= _shapes(parameter, block, quantization_of(config.quantization, role))
    return found


def _shapes(
    parameter: Parameter, block: StoredBlock, used: Quantization | None
) -> dict[str, tuple[int, ...]]:
    if not isinstance(parameter, MatrixParameter):
        return {block.name: parameter.stored_shape or (block.size,)}
    if used is None:
        return {f"{block.name}.weight": (block.size, parameter.columns)}
    widths = {
        f"{block.name}.q_weight": used.words(parameter.columns),
        f"{block.name}.q_scale": used.groups(parameter.columns),
    }
    is_transposed = used.is_transposed(parameter.role)
    return {
        name: (width, block.size) if is_transposed else (block.size, width)
        for name, width in widths.items()
    }


def mlc_tensors(folder: Path) -> dict[str, Any]:
    """Return all tensors of a folder by name; what is stored as bf16 comes as f32."""
    index = json.loads((folder / "tensor-cache.json").read_text())
    found = {}
    for shard in index["records"]:
        data = (folder / shard["dataPath"]).read_bytes()
        for record in shard["records"]:
            is_bf16 = record["format"] == "f32-to-bf16" or record["dtype"] == "bfloat16"
            dtype = np.dtype("uint16" if is_bf16 else record["dtype"])
            raw = np.frombuffer(
                data, dtype, record["nbytes"] // dtype.itemsize, record["byteOffset"]
            ).reshape(record["shape"])
            found[record["name"]] = f32_from_bf16(raw) if is_bf16 else raw
    return found
