"""MLC's weight formats in NumPy: quantise, store, and what the stored weights are worth again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from py_engine.kernels.formats import WeightFormat
from py_engine.weights.formats import CODES_PER_WORD, GROUP_SIZE

F32 = npt.NDArray[np.float32]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

_BITS = 32 // CODES_PER_WORD
_ZERO_CODE = 7
_SHIFTS = np.arange(CODES_PER_WORD, dtype=np.uint32) * np.uint32(_BITS)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as MLC's files hold it. `format` "f32-to-bf16" has the upper halves as u16."""

    name: str
    dtype: str
    format: str
    data: npt.NDArray[Any]


def bf16_from_f32(values: F32) -> U16:
    """Round to bfloat16, ties to even; returns the 16 bits. NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    kept = np.where(np.isnan(values), bits | np.uint32(0x400000), rounded)
    return (kept >> np.uint32(16)).astype(np.uint16)


def f32_from_bf16(bits: U16) -> F32:
    """Widen bfloat16 bits to f32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_to_storage(values: F32, weight_format: WeightFormat) -> F32:
    """Round to the 16-bit type that a format stores its floats in: f16, or bf16 for f32 formats."""
    if weight_format in ("q4f16_1", "q0f16"):
        return values.astype(np.float16).astype(np.float32)
    return f32_from_bf16(bf16_from_f32(values))


def quantize(weight: F32, weight_format: WeightFormat) -> tuple[U32, F32]:
    """Quantise a matrix to 4 bits in groups of 32 along its columns.

    Shapes: weight f32 (rows, columns); returns codes u32 (rows, 4 groups), eight to a word with
    the first in the lowest bits, and scales f32 (rows, groups), rounded as they are stored.
    Source: MLC-LLM's `group_quantization.py`: scale = max|w| / 7, code = round(w / scale) + 7.
    """
    rows, columns = weight.shape
    n_groups = -(-columns // GROUP_SIZE)
    padded = np.zeros((rows, n_groups * GROUP_SIZE), np.float32)
    padded[:, :columns] = weight
    groups = padded.reshape(rows, n_groups, GROUP_SIZE)
    scale = round_to_storage(np.abs(groups).max(axis=-1) / np.float32(_ZERO_CODE), weight_format)
    divisor = np.where(scale > 0, scale, np.float32(1))[..., None]
    codes = np.clip(np.round(groups / divisor) + _ZERO_CODE, 0, 2 * _ZERO_CODE).astype(np.uint32)
    flat = codes.reshape(rows, -1)
    flat[:, columns:] = 0
    words = flat.reshape(rows, -1, CODES_PER_WORD) << _SHIFTS
    return np.bitwise_or.reduce(words, axis=-1), scale


def dequantize(words: U32, scale: F32, columns: int) -> F32:
    """Undo `quantize`: (code - 7) * scale.

    Shapes: words u32 (rows, 4 groups), scale f32 (rows, groups); returns f32 (rows, columns).
    """
    rows, n_groups = scale.shape
    codes = (words[..., None] >> _SHIFTS) & np.uint32(2**_BITS - 1)
    centred = codes.reshape(rows, n_groups, GROUP_SIZE).astype(np.float32) - _ZERO_CODE
    return (centred * scale[..., None]).reshape(rows, -1)[:, :columns]


def stored_matrix(name: str, weight: F32, weight_format: WeightFormat) -> list[StoredTensor]:
    """Return the tensors that hold a matrix, f32 (rows, columns), in a format."""
    if weight_format in ("q0f16", "q0f32"):
        return [stored_floats(f"{name}.weight", weight, weight_format)]
    words, scale = quantize(weight, weight_format)
    return [
        StoredTensor(f"{name}.q_weight", "uint32", "raw", words),
        stored_floats(f"{name}.q_scale", scale, weight_format),
    ]


def stored_floats(name: str, values: F32, weight_format: WeightFormat) -> StoredTensor:
    """Return a tensor of floats as a format stores them: f16, or f32 in the shape of bf16."""
    if weight_format in ("q4f16_1", "q0f16"):
        return StoredTensor(name, "float16", "raw", values.astype(np.float16))
    return StoredTensor(name, "float32", "f32-to-bf16", bf16_from_f32(values))


def stored_value(weight: F32, weight_format: WeightFormat) -> F32:
    """Return what a weight is worth after it went through a format; vectors are never quantised."""
    if weight.ndim == 1 or weight_format in ("q0f16", "q0f32"):
        return round_to_storage(weight, weight_format)
    return dequantize(*quantize(weight, weight_format), weight.shape[1])
