"""How a file stores some rows of a matrix, and what brings them into the format on the GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from py_engine.errors import UnsupportedModelConfigError
from py_engine.gpu.types import KernelSpec
from py_engine.kernels.formats import GGUF_FORMATS, MATRIX_FORMATS, GgufFormat, WeightFormat
from py_engine.kernels.relay import Element, Float, convert_spec, pack_spec, quantize_spec
from py_engine.weights.formats import (
    FLOAT_TYPES,
    PLAIN_FORMATS,
    Quantization,
    quantization_of,
)
from py_engine.weights.gguf_config import QUANTIZATION as GGUF_FORMAT
from py_engine.weights.parameters import Transform
from py_engine.weights.records import TensorRecord
from py_engine.weights.tensor_index import TensorIndex

_GGUF_TYPES: Mapping[str, GgufFormat] = {format.upper(): format for format in GGUF_FORMATS}


@dataclass(frozen=True)
class Plane:
    """A tensor of `columns` elements a row, and the bindings whose buffers it fills.

    `kernel` is None where the bytes are as the matrix kernels want them. It makes rows of `width`
    of them, where that is given.
    """

    record: TensorRecord
    columns: int
    bindings: tuple[str, ...]
    kernel: KernelSpec | None
    width: int | None = None


@dataclass(frozen=True)
class StoredWeight:
    """Some rows of a matrix: one weight of the file, whose codes and scales are apart in MLC's.

    `transposed` are tensors that lie as [columns][rows].
    """

    format: WeightFormat
    rows: int
    transposed: bool
    transform: Transform
    planes: tuple[Plane, ...]


@dataclass(frozen=True)
class WeightReader:
    """Looks up the weights of the matrix `role`, of `columns` columns, in an index.

    `quantization` is what they shall be: as the index has them, or quantised from floats.
    `stored_row` and `ending` are those of `MatrixParameter` and `Stored`.
    """

    index: TensorIndex
    role: str
    columns: int
    quantization: str
    stored_row: tuple[int, ...] = ()
    ending: str = ".weight"

    def read(self, name: str, rows: int, transform: Transform) -> StoredWeight:
        """Return a weight by its name without ".weight".

        Errors: MissingTensorError, TensorShapeError, UnsupportedModelConfigError.
        """
        packing = self.index.packing
        if packing is not None and packing.holds(self.index, name):
            return packing.read(self.index, name, rows, self.columns, transform)
        stored = quantization_of(self.index.quantization, self.role)
        if stored is not None:
            return self._grouped(name, rows, transform, stored)
        return self._whole(name, rows, transform)

    def _grouped(
        self, name: str, rows: int, transform: Transform, stored: Quantization
    ) -> StoredWeight:
        """Read MLC's codes and scales."""
        transposed = stored.is_transposed(self.role)
        words, groups = stored.words(self.columns), stored.groups(self.columns)

        def find(part: str, columns: int, dtypes: tuple[str, ...]) -> TensorRecord:
            shape = (columns, rows) if transposed else (rows, columns)
            return self.index.typed(f"{name}.{part}", shape, dtypes)

        codes = find("q_weight", words, ("U32",))
        scales = find("q_scale", groups, ("F16",) if stored.halfs else ("F32", "BF16"))
        scale_type: Float = "f16" if stored.halfs else "f32"
        widened = _convert(FLOAT_TYPES[scales.dtype], scale_type, transposed, transform)
        planes = (
            Plane(codes, words, ("weights",), _convert("u32", "u32", transposed, transform)),
            Plane(scales, groups, ("scales",), widened),
        )
        return StoredWeight(stored.format, rows, transposed, transform, planes)

    def _whole(self, name: str, rows: int, transform: Transform) -> StoredWeight:
        """Read a weight in one tensor: floats, or GGUF's blocks."""
        transposed = transform == "transpose"
        row = self.stored_row or (self.columns,)
        shape = (*row, rows) if transposed else (rows, *row)
        types = (*FLOAT_TYPES, *(_GGUF_TYPES if self.index.quantization == GGUF_FORMAT else ()))
        record = self.index.typed(f"{name}{self.ending}", shape, types)
        is_new = self.quantization != self.index.quantization
        target = quantization_of(self.quantization, self.role) if is_new else None
        format: WeightFormat
        kernel: KernelSpec | None
        if target is not None:
            format, kernel = self._quantized(record, target, transposed)
        elif record.dtype in FLOAT_TYPES:
            format, kind = PLAIN_FORMATS[record.dtype], FLOAT_TYPES[record.dtype]
            is_padded = math.prod(row) != self.columns
            kernel = _convert(kind, kind, transposed, transform, is_padded=is_padded)
        else:
            format = _GGUF_TYPES[record.dtype]
            as_stored = _is_as_stored(format) and transform != "rope_pairs"
            kernel = None if as_stored else pack_spec(format, self.columns)
        bindings = tuple(MATRIX_FORMATS[format].buffer_bytes(rows, self.columns))
        planes = (Plane(record, math.prod(row), bindings, kernel, self.columns),)
        return StoredWeight(format, rows, transposed, transform, planes)

    def _quantized(
        self, record: TensorRecord, target: Quantization, transposed: bool
    ) -> tuple[WeightFormat, KernelSpec]:
        """Return the format that floats become while they load, and the kernel for it."""
        kind = FLOAT_TYPES.get(record.dtype)
        if kind is None:
            raise UnsupportedModelConfigError(
                f"quantization is {self.quantization!r}, but tensor {record.name!r} is stored as "
                f"{record.dtype} already; only {', '.join(FLOAT_TYPES)} can be quantised. Leave "
                "quantization away, or choose the unquantised model."
            )
        if target.format == "q3f16_1":
            raise UnsupportedModelConfigError(
                f"quantization is {self.quantization!r}, but only to 4 bits can weights be "
                "quantised while they load. Choose q4f16_1, or convert the model before."
            )
        return target.format, quantize_spec(kind, target.format, transposed=transposed)


def _convert(
    source: Element,
    target: Element,
    transposed: bool,
    transform: Transform,
    *,
    is_padded: bool = False,
) -> KernelSpec | None:
    """Return the kernel that re-lays or widens elements, None where they are copied."""
    is_moved = transposed or is_padded or transform == "rope_pairs"
    if source == target and not is_moved:
        return None
    return convert_spec(source, target, transposed=transposed)


def _is_as_stored(format: GgufFormat) -> bool:
    """Tell whether a GGUF format's blocks lie on the GPU as in the file."""
    layout = MATRIX_FORMATS[format]
    return layout.scale is None and layout.block_bytes == 4 * layout.block_words
