"""Which parts a matrix has on the GPU, and in which of them its rows lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from py_engine.errors import LimitSupportError, UnknownQuantizationError
from py_engine.gpu.types import Limits
from py_engine.kernels.formats import MATRIX_FORMATS, WeightFormat
from py_engine.weights.parameters import MatrixParameter
from py_engine.weights.transfers import Run

_ROW_UNIT = 16
"""Parts are cut at multiples of so many rows, and of a head's."""


@dataclass(frozen=True)
class MatrixPart:
    """Some rows of a matrix that lie together in one format.

    They make the outputs from `first_output` on: as many as there are `rows`, or half as many in a
    gated matrix, where the part has the rows of the gates first and then those of the same outputs'
    other factors.
    """

    format: WeightFormat
    rows: int
    first_output: int


Layouts = Mapping[str, tuple[MatrixPart, ...]]
"""The parts of each matrix, by role."""


def part_buffers(role: str, number: int, part: MatrixPart) -> dict[str, str]:
    """Return the names of the buffers of part `number`, by the bindings that kernels have."""
    sizes = MATRIX_FORMATS[part.format].buffer_bytes(part.rows, 1)
    return {binding: f"{role}.{number}.{binding}" for binding in sizes}


def matrix_buffers(parameter: MatrixParameter, parts: Sequence[MatrixPart]) -> dict[str, int]:
    """Return the sizes in bytes of the buffers of a matrix's parts, by their names."""
    found: dict[str, int] = {}
    for number, part in enumerate(parts):
        sizes = MATRIX_FORMATS[part.format].buffer_bytes(part.rows, parameter.columns)
        names = part_buffers(parameter.role, number, part)
        found |= {names[binding]: size for binding, size in sizes.items()}
    return found


def matrix_parts(
    parameter: MatrixParameter, stretches: Sequence[tuple[WeightFormat, int]], limits: Limits
) -> tuple[MatrixPart, ...]:
    """Return the parts of a matrix whose rows come in `stretches` of a format and a height.

    A buffer that would be larger than the GPU can bind is split by rows.
    Errors: LimitSupportError when a single row is too large, UnknownQuantizationError for a gate
    and its factor in different formats, which no kernel computes.
    """
    merged = _merged(stretches)
    if not parameter.gated:
        return tuple(_ungated(parameter, merged, limits))
    if len(merged) > 1:
        formats = " and ".join(format.upper() for format, _ in merged)
        raise UnknownQuantizationError(
            f"{parameter.role} is stored as {formats}, but both of its halves must have the same "
            "format. Choose the model in another quantisation."
        )
    outputs = parameter.rows // 2
    most = _most_rows(parameter, merged[0][0], limits) // 2
    return tuple(MatrixPart(merged[0][0], 2 * rows, first) for first, rows in _cuts(outputs, most))


def _merged(stretches: Iterable[tuple[WeightFormat, int]]) -> list[tuple[WeightFormat, int]]:
    """Join neighbours of one format."""
    merged: list[tuple[WeightFormat, int]] = []
    for format, rows in stretches:
        if merged and merged[-1][0] == format:
            rows += merged.pop()[1]
        merged.append((format, rows))
    return merged


def _ungated(
    parameter: MatrixParameter, merged: Iterable[tuple[WeightFormat, int]], limits: Limits
) -> Iterator[MatrixPart]:
    begin = 0
    for format, rows in merged:
        for first, height in _cuts(rows, _most_rows(parameter, format, limits)):
            yield MatrixPart(format, height, begin + first)
        begin += rows


def _most_rows(parameter: MatrixParameter, format: WeightFormat, limits: Limits) -> int:
    """Return the most rows of a part whose buffers the GPU can bind, in whole units."""
    most_bytes = min(limits.max_storage_buffer_binding_size, limits.max_buffer_size)
    unit = math.lcm(_ROW_UNIT, parameter.head_dim or 1) * (2 if parameter.gated else 1)
    unit_bytes = max(MATRIX_FORMATS[format].buffer_bytes(unit, parameter.columns).values())
    if unit_bytes > most_bytes:
        raise LimitSupportError(
            f"{unit} rows of {parameter.role} take {unit_bytes:,} bytes, but this GPU binds at "
            f"most {most_bytes:,}. Use a smaller model."
        )
    return most_bytes // unit_bytes * unit


def _cuts(rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield begin and height of the cuts of so many rows, each of at most `most`."""
    for begin in range(0, rows, most):
        yield begin, min(most, rows - begin)


def placed(parts: Sequence[MatrixPart], gated: bool, runs: Iterable[Run]) -> Iterator[Run]:
    """Yield runs whose `to_row` counts a matrix's rows as runs of rows of its parts."""
    stretches = list(_stretches(parts, gated))
    for run in runs:
        for part, row, rows, begin in stretches:
            # The run's rows in the matrix, cut to those of the part.
            first, last = max(run.to_row, row), min(run.to_row + run.rows, row + rows)
            if first < last:
                source = run.row + first - run.to_row
                yield Run(source, last - first, part, begin + first - row)


def _stretches(parts: Sequence[MatrixPart], gated: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield part, first row in the matrix, number of rows, and first row in the part."""
    outputs = sum(part.rows for part in parts) // 2
    for number, part in enumerate(parts):
        if not gated:
            yield number, part.first_output, part.rows, 0
            continue
        half = part.rows // 2
        yield number, part.first_output, half, 0
        yield number, outputs + part.first_output, half, half
