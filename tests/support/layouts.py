"""Layouts of weights that no file was planned for."""

from __future__ import annotations

from collections.abc import Sequence

from py_engine.kernels.formats import WeightFormat
from py_engine.weights.layouts import MatrixPart
from py_engine.weights.parameters import MatrixParameter, Parameter


def uniform_layouts(
    parameters: Sequence[Parameter], weight_format: WeightFormat
) -> dict[str, tuple[MatrixPart, ...]]:
    """Return the layouts of a model whose matrices all have one format, in one part each."""
    return {
        parameter.role: (MatrixPart(weight_format, parameter.rows, 0),)
        for parameter in parameters
        if isinstance(parameter, MatrixParameter)
    }
