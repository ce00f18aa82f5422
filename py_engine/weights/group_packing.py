"""Linear layers that AWQ or GPTQ quantised: codes of 4 bits, a scale and a zero for each group.

A layer `name` of so many inputs and outputs has the tensors `name.qweight` (eight codes in an I32),
`name.scales` (groups x outputs) and `name.qzeros` (eight zeros of a group in an I32). Everything
else of the model is in floats.

Source: AutoAWQ's `WQLinear_GEMM` and AutoGPTQ's `qlinear_cuda`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from py_engine.errors import UnsupportedModelConfigError
from py_engine.gpu.types import KernelSpec
from py_engine.json_fields import JsonFields, shown
from py_engine.kernels.formats import ZeroFormat
from py_engine.kernels.relay import GroupPart, convert_spec, group_spec
from py_engine.weights.parameters import Transform
from py_engine.weights.stored_weight import Plane, StoredWeight
from py_engine.weights.tensor_index import TensorIndex

_PER_WORD = 8
_FORMATS: Mapping[int, ZeroFormat] = {32: "q4g32", 64: "q4g64", 128: "q4g128"}
"""By the size of a group."""


@dataclass(frozen=True)
class GroupPacking:
    """How the layers of one model are packed. `zeros` is what brings `qzeros` into the format."""

    group_size: int
    zeros: GroupPart

    @property
    def _is_awq(self) -> bool:
        return self.zeros == "awq_zeros"

    def holds(self, index: TensorIndex, name: str) -> bool:
        """Tell whether a layer is packed; some of a model may be left in floats."""
        return f"{name}.qweight" in index.tensors

    def read(
        self, index: TensorIndex, name: str, rows: int, columns: int, transform: Transform
    ) -> StoredWeight:
        """Return a layer by its name. Errors: MissingTensorError, TensorShapeError."""
        groups = columns // self.group_size
        words, packed_rows = columns // _PER_WORD, rows // _PER_WORD
        codes = (columns, packed_rows) if self._is_awq else (words, rows)
        integers, halfs = ("I32", "U32"), ("F16",)
        planes = (
            Plane(
                index.typed(f"{name}.qweight", codes, integers),
                columns if self._is_awq else words,
                ("weights",),
                self._codes(),
            ),
            Plane(
                index.typed(f"{name}.scales", (groups, rows), halfs),
                groups,
                ("scales",),
                group_spec("scales"),
            ),
            Plane(
                index.typed(f"{name}.qzeros", (groups, packed_rows), integers),
                groups,
                ("scales",),
                group_spec(self.zeros),
            ),
        )
        # Packed layers lie as [inputs][outputs] where others of the family do not, too.
        order: Transform = "none" if transform == "transpose" else transform
        return StoredWeight(_FORMATS[self.group_size], rows, True, order, planes)

    def _codes(self) -> KernelSpec:
        if self._is_awq:
            return group_spec("awq_codes")
        return convert_spec("u32", "u32", transposed=True)


def group_packing(config: JsonFields) -> GroupPacking | None:
    """Read the `quantization_config` of a Hugging Face configuration; None where there is none.

    Errors: UnsupportedModelConfigError for what the kernels cannot read, ModelFileFormatError.
    """
    if "quantization_config" not in config:
        return None
    fields = config.object("quantization_config")
    method = fields.string("quant_method")
    zeros = {"awq": _awq, "gptq": _gptq}.get(method)
    if zeros is None:
        raise _unsupported(fields, "quant_method", method, "awq or gptq")
    bits, size = fields.integer("bits", 4), fields.integer("group_size", 128)
    if bits != 4:
        raise _unsupported(fields, "bits", bits, "4")
    if size not in _FORMATS:
        raise _unsupported(fields, "group_size", size, " or ".join(map(str, _FORMATS)))
    return GroupPacking(size, zeros(fields))


def _awq(fields: JsonFields) -> GroupPart:
    version = fields.string("version", "gemm").lower()
    if version != "gemm":
        raise _unsupported(fields, "version", version, "gemm")
    if not fields.boolean("zero_point", True):
        raise _unsupported(fields, "zero_point", False, "true")
    return "awq_zeros"


def _gptq(fields: JsonFields) -> GroupPart:
    if fields.boolean("desc_act", False):
        raise _unsupported(fields, "desc_act", True, "false (columns in their order)")
    version = fields.string("checkpoint_format", "gptq")
    if version not in ("gptq", "gptq_v2"):
        raise _unsupported(fields, "checkpoint_format", version, "gptq or gptq_v2")
    return "gptq_zeros" if version == "gptq" else "gptq_v2_zeros"


def _unsupported(
    fields: JsonFields, name: str, value: object, wanted: str
) -> UnsupportedModelConfigError:
    return UnsupportedModelConfigError(
        f"{fields.where(name)} is {shown(value)}, but only {wanted} is supported. Choose another "
        "quantisation of the model, such as a GGUF file, or the unquantised one."
    )
