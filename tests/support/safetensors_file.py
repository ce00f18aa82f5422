"""Writes safetensors files, so that reading them is tested without the library."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.weights.quantization import bf16_from_f32

_OWN_TYPES = {"float32": "F32", "float16": "F16", "int32": "I32"}


def write_safetensors(path: Path, tensors: Mapping[str, Any], dtype: str | None = "F32") -> None:
    """Write f32 arrays as "F32", "F16" or "BF16", or arrays of any type as they are (None)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    chunks: list[bytes] = []
    offset = 0
    for name, values in tensors.items():
        stored = values if dtype is None else _stored(np.asarray(values, np.float32), dtype)
        data = stored.tobytes()
        end = offset + len(data)
        kind = dtype or _OWN_TYPES[stored.dtype.name]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [offset, end]}
        chunks.append(data)
        offset = end
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"".join(chunks))


def _stored(values: Any, dtype: str) -> Any:
    if dtype == "BF16":
        return bf16_from_f32(values)
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype])
