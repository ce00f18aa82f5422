"""How a weight matrix lies on the GPU, one row of a table per weight format.

A matrix has `rows` outputs and `columns` inputs; columns are a multiple of 32 (`BLOCK`).
"""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.gpu.types import Binding
from py_engine.models.spec import WeightFormat

BLOCK = 32


@dataclass(frozen=True)
class MatrixFormat:
    """Snippets that unpack a format, and the WGSL element type and words per block of its buffers.

    `tensors` are the suffixes of the parameter name in the model's files, in binding order.
    """

    snippets: tuple[str, ...]
    tensors: tuple[str, ...]
    element: str
    elements_per_block: int
    scale_halfs: bool = False

    def bindings(self, rows: int, columns: int) -> tuple[Binding, ...]:
        """Return the buffers of a `rows` x `columns` matrix."""
        blocks = rows * columns // BLOCK
        size = blocks * self.elements_per_block
        weights = Binding("weights", "read", f"array<{self.element}, {size}>")
        if len(self.tensors) == 1:
            return (weights,)
        scale = f"array<u32, {-(-blocks // 2)}>" if self.scale_halfs else f"array<f32, {blocks}>"
        return (weights, Binding("scales", "read", scale))


_Q4 = (".q_weight", ".q_scale")

MATRIX_FORMATS: dict[WeightFormat, MatrixFormat] = {
    "q4f16_1": MatrixFormat(("weight_q4", "scale_f16"), _Q4, "vec4u", 1, scale_halfs=True),
    "q4f32_1": MatrixFormat(("weight_q4", "scale_f32"), _Q4, "vec4u", 1),
    "q0f16": MatrixFormat(("halfs", "weight_f16"), (".weight",), "vec4u", 4),
    "q0f32": MatrixFormat(("weight_f32",), (".weight",), "vec4f", 8),
}
