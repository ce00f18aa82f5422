"""Which buffers a model's weights take when its files follow one quantization throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from py_engine.gpu.types import Limits
from py_engine.kernels.formats import WeightFormat
from py_engine.weights.formats import float_format, quantization_of, require_known
from py_engine.weights.layouts import Layouts, MatrixPart, matrix_buffers, matrix_parts
from py_engine.weights.parameters import FileKind, MatrixParameter, Parameter


@dataclass(frozen=True)
class UniformWeights:
    """What a `WeightPlan` has of the same names: `layouts` by role, `buffers` in bytes."""

    layouts: Layouts
    buffers: Mapping[str, int]

    @property
    def gpu_bytes(self) -> int:
        """Bytes of all buffers together."""
        return sum(self.buffers.values())


def uniform_weights(
    parameters: Sequence[Parameter], quantization: str, kind: FileKind, limits: Limits
) -> UniformWeights:
    """Return the weights of a model with one of MLC's quantizations, in files of `kind`.

    This is what `plan_weights` makes of such files, without their index. Files that mix formats
    (GGUF, AWQ, GPTQ, q4f16_2 made while loading from f32) are not foreseen.
    Errors: UnknownQuantizationError, LimitSupportError.
    """
    require_known(quantization, "quantization")
    layouts: dict[str, tuple[MatrixPart, ...]] = {}
    buffers: dict[str, int] = {}
    for parameter in parameters:
        if isinstance(parameter, MatrixParameter):
            format = _matrix_format(quantization, parameter.role, kind)
            parts = matrix_parts(parameter, [(format, parameter.rows)], limits)
            layouts[parameter.role] = parts
            buffers |= matrix_buffers(parameter, parts)
        else:
            buffers[parameter.role] = parameter.buffer_bytes
    return UniformWeights(layouts, buffers)


def _matrix_format(quantization: str, role: str, kind: FileKind) -> WeightFormat:
    found = quantization_of(quantization, role)
    if found is not None:
        return found.format
    plain = float_format(quantization)
    # MLC's files have f32 in the shape of bf16, and matrices stay as they are stored.
    return "q0bf16" if kind == "mlc" and plain == "q0f32" else plain
