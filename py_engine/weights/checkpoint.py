"""Reads the weights of a Hugging Face folder: safetensors, in one file or several."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from py_engine.errors import ConversionError, MissingFileError, MissingTensorError
from py_engine.weights.quantization import f32_from_bf16

_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MAX_HEADER_BYTES = 100_000_000
_HEADER_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class _Entry:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class Checkpoint:
    """The tensors of a folder's `*.safetensors`, by name.

    Errors: MissingFileError when there are no such files, ConversionError for a damaged header.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, _Entry] = {}
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise MissingFileError(
                f"{folder} has no *.safetensors. Give the folder of a Hugging Face model in "
                "safetensors format."
            )
        for file in files:
            self._entries.update(_entries(file))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Return a tensor as f32. Raises MissingTensorError, and ConversionError for its type."""
        entry = self._entries.get(name)
        if entry is None:
            raise MissingTensorError(
                f"{self._folder} has no tensor {name!r}, which the model's configuration asks for. "
                "Use config.json and weights of the same model."
            )
        if entry.dtype not in _DTYPES:
            raise ConversionError(
                f"{entry.file}: tensor {name!r} is {entry.dtype}, but only "
                f"{', '.join(_DTYPES)} can be converted. Use the model's unquantised weights."
            )
        stored = np.memmap(
            entry.file, _DTYPES[entry.dtype], mode="r", offset=entry.offset, shape=entry.shape
        )
        values = f32_from_bf16(np.asarray(stored)) if entry.dtype == "BF16" else stored
        return np.asarray(values, np.float32)


def _entries(file: Path) -> dict[str, _Entry]:
    with file.open("rb") as stream:
        prefix = stream.read(_HEADER_LENGTH.size)
        length = _HEADER_LENGTH.unpack(prefix)[0] if len(prefix) == _HEADER_LENGTH.size else 0
        raw = stream.read(length) if length <= _MAX_HEADER_BYTES else b""
    try:
        header: dict[str, Any] = json.loads(raw)
        header.pop("__metadata__", None)
        start = _HEADER_LENGTH.size + length
        entries = {
            name: _Entry(file, v["dtype"], tuple(v["shape"]), start + v["data_offsets"][0])
            for name, v in header.items()
        }
        end = start + max((v["data_offsets"][1] for v in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConversionError(
            f"{file} is not a safetensors file: its header cannot be read. Download it again."
        ) from error
    if file.stat().st_size < end:
        raise ConversionError(
            f"{file} has {file.stat().st_size} bytes, but its header says {end}. Download it again."
        )
    return entries
