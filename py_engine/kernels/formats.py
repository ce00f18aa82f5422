"""How a weight matrix lies on the GPU, one row of a table per weight format.

A matrix has `rows` outputs and `columns` inputs. Kernels take columns in blocks of 32 (`BLOCK`),
of which every row has a whole number; K-quants of GGUF have 256 columns in a block of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from py_engine.gpu.types import Binding

MlcFormat = Literal["q4f16_1", "q4f32_1", "q3f16_1"]
"""MLC's names: codes of 4 or 3 bits in groups along the columns, with f16 or f32 scales."""

FloatFormat = Literal["q0f16", "q0bf16", "q0f32"]
"""Plain f16, bf16 or f32."""

GgufFormat = Literal[
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"
]  # fmt: skip
"""GGUF's blocks, with the names of its types in lower case."""

ZeroFormat = Literal["q4g32", "q4g64", "q4g128"]
"""AWQ and GPTQ: codes of 4 bits in groups of so many columns, each with a scale and a zero."""

WeightFormat = Literal[MlcFormat, FloatFormat, GgufFormat, ZeroFormat]

GGUF_FORMATS: tuple[GgufFormat, ...] = get_args(GgufFormat)

BLOCK = 32

_VALUES = ("halves_plain", "block_plain")
"""Snippets that make a block of a format's values, 16 columns at a time."""

_ELEMENT_BYTES = {"u32": 4, "vec4u": 16, "vec4f": 16}


@dataclass(frozen=True)
class MatrixFormat:
    """Snippets that unpack a format, and how its buffers are laid out.

    A format's own block has `block_columns` columns: `elements_per_block` of `element` in the
    buffer `weights`, and one value of the type `scale` in the buffer `scales`, if the format has
    scales there ("f16_zero": a word with an f16 scale and, above it, an integer zero).
    `block_bytes` is the size of a GGUF block in its file.
    """

    snippets: tuple[str, ...]
    element: str
    elements_per_block: int
    scale: Literal["f16", "f32", "f16_zero"] | None = None
    block_columns: int = BLOCK
    block_bytes: int | None = None

    @property
    def column_multiple(self) -> int:
        """What the number of columns must be a multiple of."""
        return max(BLOCK, self.block_columns) if self.block_columns % BLOCK == 0 else BLOCK

    @property
    def block_words(self) -> int:
        """Words (u32) of a block in the buffer `weights`."""
        return self.elements_per_block * _ELEMENT_BYTES[self.element] // 4

    def row_blocks(self, columns: int) -> int:
        """Return the number of the format's own blocks in a row."""
        return -(-columns // self.block_columns)

    def bindings(self, rows: int, columns: int) -> tuple[Binding, ...]:
        """Return the buffers of a `rows` x `columns` matrix."""
        blocks = rows * self.row_blocks(columns)
        size = blocks * self.elements_per_block
        weights = Binding("weights", "read", f"array<{self.element}, {size}>")
        if self.scale is None:
            return (weights,)
        element = "f32" if self.scale == "f32" else "u32"
        return (
            weights,
            Binding("scales", "read", f"array<{element}, {self._scale_words(blocks)}>"),
        )

    def buffer_bytes(self, rows: int, columns: int) -> Mapping[str, int]:
        """Return the sizes of these buffers, by name."""
        blocks = rows * self.row_blocks(columns)
        sizes = {"weights": 4 * blocks * self.block_words}
        if self.scale is not None:
            sizes["scales"] = 4 * self._scale_words(blocks)
        return sizes

    def _scale_words(self, blocks: int) -> int:
        return -(-blocks // 2) if self.scale == "f16" else blocks


def _scaled(snippet: str, element: str, per_block: int, block_bytes: int) -> MatrixFormat:
    """Return a GGUF format whose blocks begin with their f16 scale, which lies apart."""
    snippets = ("bytes", snippet, "scale_f16", "halves_scaled")
    return MatrixFormat(snippets, element, per_block, "f16", block_bytes=block_bytes)


def _whole(
    snippets: tuple[str, ...], element: str, per_block: int, block_bytes: int, columns: int = 256
) -> MatrixFormat:
    """Return a GGUF format whose blocks lie as in the file, padded to whole words."""
    return MatrixFormat(
        ("bytes", *snippets),
        element,
        per_block,
        block_columns=columns,
        block_bytes=block_bytes,
    )


_CODES = ("weight_q4", "weight_q4_block")
"""What unpacks 4-bit codes."""


def _zeros(columns: int) -> MatrixFormat:
    """Return a format with a scale and a zero for every so many columns."""
    snippets = (f"group_{columns}", "group_zeros", *_CODES)
    return MatrixFormat(snippets, "vec4u", columns // BLOCK, "f16_zero", columns)


MATRIX_FORMATS: dict[WeightFormat, MatrixFormat] = {
    "q4f16_1": MatrixFormat(("scale_f16", "group_mlc", *_CODES), "vec4u", 1, "f16"),
    "q4f32_1": MatrixFormat(("scale_f32", "group_mlc", *_CODES), "vec4u", 1, "f32"),
    "q3f16_1": MatrixFormat(
        ("scale_f16", "weight_q3", *_VALUES), "u32", 4, "f16", block_columns=40
    ),
    "q0f16": MatrixFormat(("elements_f16", "weight_16bit", *_VALUES), "vec4u", 4),
    "q0bf16": MatrixFormat(("elements_bf16", "weight_16bit", *_VALUES), "vec4u", 4),
    "q0f32": MatrixFormat(("weight_f32", *_VALUES), "vec4f", 8),
    "q4_0": MatrixFormat(("scale_f16", "group_gguf", *_CODES), "vec4u", 1, "f16", block_bytes=18),
    "q5_0": _scaled("weight_q5_0", "u32", 5, 22),
    "q8_0": _scaled("weight_q8_0", "vec4u", 2, 34),
    "q4_1": _whole(("weight_q4_1", *_VALUES), "u32", 5, 20, columns=32),
    "q5_1": _whole(("weight_q5_1", *_VALUES), "u32", 6, 24, columns=32),
    "q2_k": _whole(("weight_q2_k", *_VALUES), "u32", 21, 84),
    "q3_k": _whole(("weight_q3_k", *_VALUES), "vec4u", 7, 110),
    "q4_k": _whole(("k_scales", "weight_q4_k", "k_halves", "block_plain"), "vec4u", 9, 144),
    "q5_k": _whole(("k_scales", "weight_q5_k", "k_halves", "block_plain"), "vec4u", 11, 176),
    "q6_k": _whole(("weight_q6_k", *_VALUES), "u32", 53, 210),
    "q4g32": _zeros(32),
    "q4g64": _zeros(64),
    "q4g128": _zeros(128),
}
