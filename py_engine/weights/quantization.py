"""MLC's weight formats in NumPy: quantise, store, and what the stored weights are worth again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from py_engine.kernels.formats import MlcFormat, WeightFormat
from py_engine.kernels.group_quantization import (
    CODES,
    F32,
    bf16_from_f32,
    dequantize,
    f32_from_bf16,
    quantize,
)

__all__ = [
    "F32",
    "StoredTensor",
    "bf16_from_f32",
    "dequantize",
    "f32_from_bf16",
    "quantize",
    "round_to_storage",
    "stored_floats",
    "stored_matrix",
    "stored_value",
]

HALF_FORMATS = ("q4f16_1", "q3f16_1", "q0f16")
"""Formats whose floats are f16; those of the others are bf16."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as MLC's files hold it. `format` "f32-to-bf16" has the upper halves as u16."""

    name: str
    dtype: str
    format: str
    data: npt.NDArray[Any]


def _grouped(weight_format: WeightFormat) -> MlcFormat | None:
    """Return the format if it quantises in groups, None for plain floats."""
    return next((known for known in CODES if known == weight_format), None)


def round_to_storage(values: F32, weight_format: WeightFormat) -> F32:
    """Round to the 16-bit type that a format stores its floats in: f16, or bf16 for f32 formats."""
    if weight_format in HALF_FORMATS:
        return values.astype(np.float16).astype(np.float32)
    return f32_from_bf16(bf16_from_f32(values))


def stored_matrix(name: str, weight: F32, weight_format: WeightFormat) -> list[StoredTensor]:
    """Return the tensors that hold a matrix, f32 (rows, columns), in a format of MLC's files."""
    grouped = _grouped(weight_format)
    if grouped is None:
        return [stored_floats(f"{name}.weight", weight, weight_format)]
    words, scale = quantize(weight, grouped)
    return [
        StoredTensor(f"{name}.q_weight", "uint32", "raw", words),
        stored_floats(f"{name}.q_scale", scale, weight_format),
    ]


def stored_floats(name: str, values: F32, weight_format: WeightFormat) -> StoredTensor:
    """Return a tensor of floats as a format stores them: f16, or f32 in the shape of bf16."""
    if weight_format in HALF_FORMATS:
        return StoredTensor(name, "float16", "raw", values.astype(np.float16))
    return StoredTensor(name, "float32", "f32-to-bf16", bf16_from_f32(values))


def stored_value(weight: F32, weight_format: WeightFormat) -> F32:
    """Return what a weight is worth after it went through a format; vectors are never quantised."""
    grouped = _grouped(weight_format)
    if weight.ndim == 1 or grouped is None:
        return round_to_storage(weight, weight_format)
    return dequantize(*quantize(weight, grouped), weight.shape[1], grouped)
