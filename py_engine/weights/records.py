"""Where tensors lie in a model's files, in one form for all kinds of files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

ELEMENT_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
"""Bytes of an element, by the names that safetensors gives to types."""


@dataclass(frozen=True)
class TensorRecord:
    """A tensor: `nbytes` from `byte_offset` of `file` on, little-endian, in C order.

    `dtype` has the names of safetensors ("F32", "BF16", "U32", ...) and of GGUF ("Q4_K", ...).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: str
    byte_offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def is_inside(path: str) -> bool:
    """Tell whether a file's path, as an index gives it, stays in the model's folder."""
    parts = path.split("/")
    return "\\" not in path and ":" not in path and not {"", ".", ".."} & set(parts)
