"""How a weight matrix lies on the GPU, one row of a table per weight format.

A matrix has `rows` outputs and `columns` inputs; columns are a multiple of 32 (`BLOCK`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from py_engine.gpu.types import Binding

WeightFormat = Literal["q4f16_1", "q4f32_1", "q0f16", "q0f32"]
"""MLC's names: 4-bit codes with f16 or f32 scales, or plain f16 or f32."""

BLOCK = 32


@dataclass(frozen=True)
class MatrixFormat:
    """Snippets that unpack a format, and the element types of its buffers.

    A block has `elements_per_block` of `element` in the buffer `weights`, and one value of the type
    `scale` in the buffer `scales`, if the format has scales.
    """

    snippets: tuple[str, ...]
    element: str
    elements_per_block: int
    scale: Literal["f16", "f32"] | None = None

    def bindings(self, rows: int, columns: int) -> tuple[Binding, ...]:
        """Return the buffers of a `rows` x `columns` matrix."""
        blocks = rows * columns // BLOCK
        size = blocks * self.elements_per_block
        weights = Binding("weights", "read", f"array<{self.element}, {size}>")
        if self.scale is None:
            return (weights,)
        pairs = f"array<u32, {-(-blocks // 2)}>"
        scales = pairs if self.scale == "f16" else f"array<f32, {blocks}>"
        return (weights, Binding("scales", "read", scales))


MATRIX_FORMATS: dict[WeightFormat, MatrixFormat] = {
    "q4f16_1": MatrixFormat(("weight_q4", "scale_f16"), "vec4u", 1, "f16"),
    "q4f32_1": MatrixFormat(("weight_q4", "scale_f32"), "vec4u", 1, "f32"),
    "q0f16": MatrixFormat(("halfs", "weight_f16"), "vec4u", 4),
    "q0f32": MatrixFormat(("weight_f32",), "vec4f", 8),
}
