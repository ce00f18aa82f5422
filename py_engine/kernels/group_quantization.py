"""MLC's group quantisation in NumPy: what a conversion writes, and what the GPU computes while
loading.

Source: MLC-LLM's `group_quantization.py`. In a group of columns, scale = max|w| / zero and
code = round(w / scale) + zero, with zero the middle code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from py_engine.kernels.formats import MATRIX_FORMATS, MlcFormat

F32 = npt.NDArray[np.float32]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

WORDS_PER_GROUP = 4


@dataclass(frozen=True)
class Codes:
    """Codes of `bits` bits, `per_word` to a u32 with the first in the lowest bits."""

    bits: int
    per_word: int

    @property
    def zero(self) -> int:
        """The code of 0."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def shifts(self) -> U32:
        """Where each code of a word begins."""
        return np.arange(self.per_word, dtype=np.uint32) * np.uint32(self.bits)


CODES: Mapping[MlcFormat, Codes] = {
    "q4f16_1": Codes(4, 8),
    "q4f32_1": Codes(4, 8),
    "q3f16_1": Codes(3, 10),
}


def bf16_from_f32(values: F32) -> U16:
    """Round to bfloat16, ties to even; returns the 16 bits. NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    kept = np.where(np.isnan(values), bits | np.uint32(0x400000), rounded)
    return (kept >> np.uint32(16)).astype(np.uint16)


def f32_from_bf16(bits: U16) -> F32:
    """Widen bfloat16 bits to f32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def stored_scale(scale: F32, weight_format: MlcFormat) -> F32:
    """Round scales to the type that a format stores: f16, or bf16 for q4f32_1.

    Below the normal numbers of f32, which GPUs take for 0, a scale is 0.
    """
    if MATRIX_FORMATS[weight_format].scale == "f16":
        with np.errstate(over="ignore"):  # what is too large is infinite
            return scale.astype(np.float16).astype(np.float32)
    normal = np.where(scale < np.finfo(np.float32).tiny, np.float32(0), scale)
    return f32_from_bf16(bf16_from_f32(normal))


def quantize(weight: F32, weight_format: MlcFormat) -> tuple[U32, F32]:
    """Quantise a matrix in groups along its columns.

    Shapes: weight f32 (rows, columns); returns words u32 (rows, 4 groups) and scales f32 (rows,
    groups), rounded as they are stored. The last group's missing columns have code 0.
    """
    rows, columns = weight.shape
    group, codes = MATRIX_FORMATS[weight_format].block_columns, CODES[weight_format]
    n_groups = -(-columns // group)
    padded = np.zeros((rows, n_groups * group), np.float32)
    padded[:, :columns] = weight
    groups = padded.reshape(rows, n_groups, group)
    scale = stored_scale(np.abs(groups).max(axis=-1) / np.float32(codes.zero), weight_format)
    divisor = np.where(scale > 0, scale, np.float32(1))[..., None]
    rounded = np.round(groups / divisor) + codes.zero
    flat = np.clip(rounded, 0, 2 * codes.zero).astype(np.uint32).reshape(rows, -1)
    flat[:, columns:] = 0
    words = flat.reshape(rows, -1, codes.per_word) << codes.shifts
    return np.bitwise_or.reduce(words, axis=-1), scale


def dequantize(words: U32, scale: F32, columns: int, weight_format: MlcFormat = "q4f16_1") -> F32:
    """Undo `quantize`: (code - zero) * scale.

    Shapes: words u32 (rows, 4 groups), scale f32 (rows, groups); returns f32 (rows, columns).
    """
    rows, n_groups = scale.shape
    form = CODES[weight_format]
    codes = (words[..., None] >> form.shifts) & np.uint32(2**form.bits - 1)
    centred = codes.reshape(rows, n_groups, -1).astype(np.float32) - np.float32(form.zero)
    return (centred * scale[..., None]).reshape(rows, -1)[:, :columns]
