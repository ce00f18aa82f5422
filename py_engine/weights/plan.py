"""How a model's parameters lie on the GPU, and the tensors of MLC's files that they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from py_engine.kernels.formats import WeightFormat
from py_engine.weights.formats import CODES_PER_WORD, GROUP_SIZE
from py_engine.weights.parameters import MatrixParameter, NameTable, Parameter

Layout = Literal["u32", "f16", "f32"]


@dataclass(frozen=True)
class MatrixPart:
    """Rows of a matrix that lie in buffers of their own.

    A gated matrix's part has some rows of gates, then the same rows of ups. It makes the outputs
    from `first_output` on.
    """

    format: WeightFormat
    rows: int
    first_output: int = 0


Layouts = Mapping[str, tuple[MatrixPart, ...]]
"""The parts of each matrix, by role."""


def part_buffers(role: str, number: int, part: MatrixPart) -> dict[str, str]:
    """Return the names of the buffers of part `number` of a matrix, by binding."""
    return {name: f"{role}.{number}.{name}" for name in ("weights", "scales")}


@dataclass(frozen=True)
class WeightSlot:
    """A tensor by its name in the model's files.

    `layout` is how its elements lie on the GPU: "u32" words as stored, "f16" halfs as stored (two
    to a u32), "f32" converted while loading.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout


def uniform_layouts(
    parameters: Sequence[Parameter], weight_format: WeightFormat
) -> dict[str, tuple[MatrixPart, ...]]:
    """Return the layouts of a model whose matrices all have one format, in one part each."""
    return {
        parameter.role: (MatrixPart(weight_format, parameter.rows),)
        for parameter in parameters
        if isinstance(parameter, MatrixParameter)
    }


def matrix_tensors(name: str, weight_format: WeightFormat) -> list[str]:
    """Return the names of the tensors that hold one matrix: its weights, or codes and scales."""
    if weight_format in ("q0f16", "q0f32"):
        return [f"{name}.weight"]
    return [f"{name}.q_weight", f"{name}.q_scale"]


def matrix_slots(
    name: str, matrix: MatrixParameter, weight_format: WeightFormat
) -> list[WeightSlot]:
    """Return the tensors that hold one matrix, in the order of `matrix_tensors`."""
    groups = -(-matrix.columns // GROUP_SIZE)
    words = (matrix.rows, groups * (GROUP_SIZE // CODES_PER_WORD))
    plain, scales = (matrix.rows, matrix.columns), (matrix.rows, groups)
    kinds: dict[WeightFormat, list[tuple[tuple[int, int], Layout]]] = {
        "q0f16": [(plain, "f16")],
        "q0f32": [(plain, "f32")],
        "q4f16_1": [(words, "u32"), (scales, "f16")],
        "q4f32_1": [(words, "u32"), (scales, "f32")],
    }
    names = matrix_tensors(name, weight_format)
    return [
        WeightSlot(name, shape, layout)
        for name, (shape, layout) in zip(names, kinds[weight_format], strict=True)
    ]


def weight_slots(
    parameters: Sequence[Parameter], names: NameTable, weight_format: WeightFormat
) -> dict[str, WeightSlot]:
    """Return the tensor of every buffer, by the buffer's name, in files that fuse as we do.

    Vectors are f32 in all formats: they are small.
    """
    slots: dict[str, WeightSlot] = {}
    for parameter in parameters:
        (name,) = names[parameter.role].names
        if isinstance(parameter, MatrixParameter):
            part = MatrixPart(weight_format, parameter.rows)
            buffers = part_buffers(parameter.role, 0, part).values()
            slots |= zip(buffers, matrix_slots(name, parameter, weight_format), strict=False)
        else:
            slots[parameter.role] = WeightSlot(name, (parameter.size,), "f32")
    return slots
