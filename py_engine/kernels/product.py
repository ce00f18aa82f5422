"""What all kernels of a product with a weight matrix share: its shape, and where outputs go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from py_engine.chat_config import ActivationDtype
from py_engine.gpu.types import Binding
from py_engine.kernels.formats import BLOCK, MATRIX_FORMATS, WeightFormat
from py_engine.kernels.wgsl import F16_DIRECTIVES, INT8_DIRECTIVES

Activation = Literal["none", "silu", "gelu", "gelu_tanh"]
"""`gelu` is the one with the error function (Hendrycks and Gimpel 2016), `gelu_tanh` its
approximation with tanh."""

_DIRECTIVES: dict[ActivationDtype, tuple[str, ...]] = {
    "float32": (),
    "float16": F16_DIRECTIVES,
    "int8": INT8_DIRECTIVES,
}

_CODES = "weight_q4"
"""The snippet of formats of 4-bit codes."""


@dataclass(frozen=True)
class Epilogue:
    """What becomes of a product, in the order of the fields.

    `bias` f32, one value a row of the whole matrix, is added. The `activation` follows; with
    `gated` the first half of a part's rows are gates, and the outputs are activation(gate) * up,
    half as many. `soft_cap` c is c * tanh(y / c). `residual` adds to what the output holds.
    """

    bias: bool = False
    activation: Activation = "none"
    gated: bool = False
    soft_cap: float | None = None
    residual: bool = False


STORE = Epilogue()

QUAD = 4
"""Rows of a work item."""

SUBGROUP_WORKGROUP = 64
"""Threads of a workgroup whose subgroups have a quad each."""

QUADS_WORKGROUP = 16
"""The same where they have several."""


def has_codes(weight_format: WeightFormat) -> bool:
    """Tell whether weights are 4-bit codes, which products with x in 8 bits are for."""
    return _CODES in MATRIX_FORMATS[weight_format].snippets


@dataclass(frozen=True)
class MatrixProduct:
    """What GEMV and GEMM of one matrix, or of a part of it, have in common.

    With `masks_codes` subgroups unpack 4-bit codes without shifts. x is rounded to
    `activation_dtype`; "int8" is for 4-bit codes only.
    """

    weight_format: WeightFormat
    rows: int
    columns: int
    epilogue: Epilogue
    first_output: int
    n_outputs: int
    masks_codes: bool = False
    activation_dtype: ActivationDtype = "float32"

    @property
    def quads(self) -> int:
        """Work items of four rows; a gated one has two gates and two ups."""
        return -(-(self.rows // 2) // 2) if self.epilogue.gated else -(-self.rows // 4)

    @property
    def has_codes(self) -> bool:
        """Whether the weights are 4-bit codes."""
        return has_codes(self.weight_format)

    @property
    def constants(self) -> dict[str, int | float | bool | str]:
        """What all kernels of the product know."""
        return {
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "BLOCKS": self.columns // BLOCK,
            "QUADS": self.quads,
            "FIRST_OUTPUT": self.first_output,
            "N_OUTPUTS": self.n_outputs,
            "INPUT_STRIDE": self.columns // 4,
            "OUTPUT_STRIDE": self.n_outputs,
            "SOFT_CAP": float(self.epilogue.soft_cap or 0),
            "RESIDUAL": self.epilogue.residual,
            "GATED": self.epilogue.gated,
            "format": self.weight_format,
            "activation": self.epilogue.activation,
            "activation_dtype": self.activation_dtype,
        }

    @property
    def snippets(self) -> tuple[str, ...]:
        """What unpacks the weights, then what stores the outputs."""
        epilogue = self.epilogue
        masks = self.masks_codes and self.activation_dtype != "int8"
        unpacking = MATRIX_FORMATS[self.weight_format].snippets
        return (
            "block",
            *(f"{each}_masked" if masks and each == _CODES else each for each in unpacking),
            "bias_rows" if epilogue.bias else "bias_none",
            f"activation_{epilogue.activation}",
            "epilogue_store",
            "epilogue_gated" if epilogue.gated else "epilogue_rows",
        )

    def operand(self, *, by_word: bool = False) -> tuple[str, ...]:
        """Return the snippets that multiply a block of a row by a token's.

        x and weights are in f32, x in f32 and weights codes, or both in 8 bits. Codes are unpacked
        at once, or `by_word`, for one token.
        """
        if self.activation_dtype == "int8":
            return ("operand_int8", "codes_at")
        if not self.has_codes:
            return ("operand_float",)
        return ("operand_codes", "codes_by_word" if by_word else "codes_by_block", "codes_at")

    @property
    def column(self) -> str:
        """The snippet of what rows share of where the scale of a block lies."""
        found = MATRIX_FORMATS[self.weight_format]
        has_pairs = found.scale == "f16" and found.block_columns == BLOCK
        return "column_pairs" if has_pairs and self.columns // BLOCK % 2 == 0 else "column_plain"

    @property
    def directives(self) -> tuple[str, ...]:
        """What the kernels need of WGSL."""
        return _DIRECTIVES[self.activation_dtype]

    @property
    def weights(self) -> tuple[Binding, ...]:
        """The buffers of the matrix."""
        return MATRIX_FORMATS[self.weight_format].bindings(self.rows, self.columns)

    def outputs(self, n_floats: int) -> tuple[Binding, ...]:
        """Return the bias, where there is one, and the output of so many floats."""
        output = Binding("output", "read_write", f"array<f32, {n_floats}>")
        if not self.epilogue.bias:
            return (output,)
        n_biases = self.n_outputs * (2 if self.epilogue.gated else 1)
        return (Binding("bias", "read", f"array<f32, {n_biases}>"), output)

    def groups(self, quads_per_workgroup: int) -> int:
        """Return how many workgroups have all quads."""
        return -(-self.quads // quads_per_workgroup)


def matrix_product(
    weight_format: WeightFormat,
    rows: int,
    columns: int,
    epilogue: Epilogue,
    first_output: int,
    n_outputs: int | None,
) -> MatrixProduct:
    """Return the product of a matrix, or of the part that writes outputs from `first_output` on.

    `n_outputs` are those of the whole matrix, None for one in one part.
    """
    written = rows // 2 if epilogue.gated else rows
    whole = written if n_outputs is None else n_outputs
    return MatrixProduct(weight_format, rows, columns, epilogue, first_output, whole)


def subgroups_in(workgroup: int, lanes: int | None) -> int:
    """Return how many subgroups of the largest size a workgroup has; 1 without subgroups."""
    return 1 if lanes is None else max(1, workgroup // lanes)
