"""From a matrix's tensors in a file to its parts on the GPU and the way there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from py_engine.gpu.types import Limits
from py_engine.weights.layouts import MatrixPart, matrix_buffers, matrix_parts, part_buffers, placed
from py_engine.weights.parameters import MatrixParameter, Stored, stored_blocks
from py_engine.weights.stored_weight import StoredWeight, WeightReader
from py_engine.weights.tensor_index import TensorIndex
from py_engine.weights.transfers import TensorLoad, joined, source_runs


@dataclass(frozen=True)
class MatrixPlan:
    """The parts of a matrix, its buffers' sizes in bytes, and its tensors' ways there."""

    parts: tuple[MatrixPart, ...]
    buffers: dict[str, int]
    loads: tuple[TensorLoad, ...]


def plan_matrix(
    parameter: MatrixParameter,
    stored: Stored,
    index: TensorIndex,
    quantization: str,
    limits: Limits,
) -> MatrixPlan:
    """Plan one matrix; `quantization` is what its weights shall be, as stored or quantised.

    Errors: those of `WeightReader` and `matrix_parts`.
    """
    reader = WeightReader(
        index,
        parameter.role,
        parameter.columns,
        index.quantization if parameter.stays else quantization,
        parameter.stored_row,
        stored.ending,
    )
    weights = [
        reader.read(block.name, block.size, block.transform)
        for block in stored_blocks(parameter, stored)
    ]
    stretches = [(weight.format, weight.rows) for weight in weights]
    parts = matrix_parts(parameter, stretches, limits)
    buffers = matrix_buffers(parameter, parts)
    return MatrixPlan(parts, buffers, tuple(_loads(parameter, weights, parts)))


def _loads(
    parameter: MatrixParameter, weights: Sequence[StoredWeight], parts: Sequence[MatrixPart]
) -> Iterator[TensorLoad]:
    names = [part_buffers(parameter.role, number, part) for number, part in enumerate(parts)]
    head_dim, blocks = parameter.head_dim or 0, len(parameter.row_blocks)
    begin = 0
    for weight in weights:
        whole = source_runs(weight.rows, begin, weight.transform, head_dim, blocks)
        runs = joined(placed(parts, parameter.gated, whole))
        for plane in weight.planes:
            yield TensorLoad(
                record=plane.record,
                rows=weight.rows,
                columns=plane.columns,
                runs=runs,
                targets=tuple(_picked(each, plane.bindings) for each in names),
                kernel=plane.kernel,
                rope_pairs=head_dim if weight.transform == "rope_pairs" else 0,
                whole=weight.transposed,
                width=plane.width,
            )
        begin += weight.rows


def _picked(names: Mapping[str, str], bindings: tuple[str, ...]) -> tuple[str, ...]:
    # A part in another format has other buffers, and none of this weight's rows.
    return tuple(names[binding] for binding in bindings if binding in names)
