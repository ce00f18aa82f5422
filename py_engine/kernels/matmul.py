"""Products with a weight matrix: GEMV for one token, GEMM for a prefill chunk.

y[row] = sum over columns of w[row, column] * x[column], with RMSNorm of x folded in (GEMV only) and
one of the epilogues: `store`, `residual` (add to what is there) or `swiglu` (the first half of the
rows are gates: silu(gate) * up, half as many outputs). `bias`, `bias_residual` and `bias_gelu` add
a bias f32 (rows,) first; GELU is the one with the error function.

Cost: reads every weight once (GEMV), or once for every 4 tokens (subgroups) or 32 (workgroup tile).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.formats import BLOCK, MATRIX_FORMATS, WeightFormat
from py_engine.kernels.wgsl import STATE, STATE_WORDS, SUBGROUP_DIRECTIVES, kernel_spec

Epilogue = Literal["store", "residual", "swiglu", "bias", "bias_residual", "bias_gelu"]


@dataclass(frozen=True)
class _EpilogueKind:
    snippets: tuple[str, ...]
    adds: bool = False
    biased: bool = False


_EPILOGUES: dict[Epilogue, _EpilogueKind] = {
    "store": _EpilogueKind(("row_plain", "epilogue_rows")),
    "residual": _EpilogueKind(("row_plain", "epilogue_rows"), adds=True),
    "swiglu": _EpilogueKind(("epilogue_swiglu",)),
    "bias": _EpilogueKind(("row_bias", "epilogue_rows"), biased=True),
    "bias_residual": _EpilogueKind(("row_bias", "epilogue_rows"), adds=True, biased=True),
    "bias_gelu": _EpilogueKind(("row_bias_gelu", "epilogue_rows"), biased=True),
}

_SUBGROUP_WORKGROUP = 64
_PLAIN_WORKGROUP = 32


def _n_quads(rows: int, epilogue: Epilogue) -> int:
    """Return the number of work items of four rows; a SwiGLU item has two gates and two ups."""
    return -(-rows // 4) if epilogue != "swiglu" else -(-(rows // 2) // 2)


def _product_constants(
    weight_format: WeightFormat, rows: int, columns: int, epilogue: Epilogue, workgroup: int
) -> dict[str, int | float | bool | str]:
    return {
        "ROWS": rows,
        "COLUMNS": columns,
        "BLOCKS": columns // BLOCK,
        "QUADS": _n_quads(rows, epilogue),
        "WORKGROUP": workgroup,
        "RESIDUAL": _EPILOGUES[epilogue].adds,
        "format": weight_format,
        "epilogue": epilogue,
    }


def _epilogue_bindings(rows: int, epilogue: Epilogue, n_tokens: int) -> list[Binding]:
    size = n_tokens * (rows // 2 if epilogue == "swiglu" else rows)
    output = Binding("output", "read_write", f"array<f32, {size}>")
    if not _EPILOGUES[epilogue].biased:
        return [output]
    return [Binding("bias", "read", f"array<f32, {rows}>"), output]


def gemv(
    label: str,
    weight_format: WeightFormat,
    rows: int,
    columns: int,
    *,
    epilogue: Epilogue = "store",
    norm_eps: float | None = None,
    lanes: int | None = None,
) -> KernelSpec:
    """Build a decode product of one token.

    Shapes: weights (rows, columns), x f32 (columns,), norm f32 (columns,) when `norm_eps` is given
    (RMSNorm of x first), output f32 (rows,), or (rows / 2,) for swiglu.
    """
    quads = _n_quads(rows, epilogue)
    subgroups = lanes is not None
    workgroup = _SUBGROUP_WORKGROUP if subgroups else _PLAIN_WORKGROUP
    constants = _product_constants(weight_format, rows, columns, epilogue, workgroup)
    vectors = [Binding("x", "read", f"array<vec4f, {columns // 4}>")]
    if norm_eps is not None:
        constants["EPSILON"] = float(norm_eps)
        vectors.append(Binding("norm", "read", f"array<vec4f, {columns // 4}>"))
    matrix = MATRIX_FORMATS[weight_format]
    return kernel_spec(
        "gemv",
        label,
        snippets=(
            "block",
            *matrix.snippets,
            "norm_none" if norm_eps is None else "norm_rms",
            *_EPILOGUES[epilogue].snippets,
            "input_block",
            "gemv_accumulate",
            "gemv_subgroup" if subgroups else "gemv_workgroup",
        ),
        bindings=(
            *matrix.bindings(rows, columns),
            *vectors,
            *_epilogue_bindings(rows, epilogue, 1),
        ),
        constants=constants,
        groups_x=_groups(quads, lanes, quads_per_workgroup=1),
        directives=SUBGROUP_DIRECTIVES if subgroups else (),
    )


def gemm(
    label: str,
    weight_format: WeightFormat,
    rows: int,
    columns: int,
    max_tokens: int,
    *,
    epilogue: Epilogue = "store",
    lanes: int | None = None,
) -> KernelSpec:
    """Build a prefill product of up to `max_tokens` tokens; `state` holds how many there are.

    Shapes: weights (rows, columns), x f32 (max_tokens, columns), output f32 (max_tokens, rows), or
    (max_tokens, rows / 2) for swiglu. Rows of tokens that are not there stay untouched.
    """
    quads = _n_quads(rows, epilogue)
    subgroups = lanes is not None
    workgroup = _SUBGROUP_WORKGROUP
    constants = _product_constants(weight_format, rows, columns, epilogue, workgroup)
    matrix = MATRIX_FORMATS[weight_format]
    return kernel_spec(
        "gemm",
        label,
        snippets=(
            "block",
            *matrix.snippets,
            *_EPILOGUES[epilogue].snippets,
            "input_block",
            "gemm_subgroup" if subgroups else "gemm_workgroup",
        ),
        bindings=(
            *matrix.bindings(rows, columns),
            Binding("x", "read", f"array<vec4f, {max_tokens * columns // 4}>"),
            STATE,
            *_epilogue_bindings(rows, epilogue, max_tokens),
        ),
        constants={**constants, **STATE_WORDS},
        groups_x=_groups(quads, lanes, quads_per_workgroup=8),
        tokens_per_group=4 if subgroups else 32,
        directives=SUBGROUP_DIRECTIVES if subgroups else (),
    )


def _groups(quads: int, lanes: int | None, *, quads_per_workgroup: int) -> int:
    """Return the grid's width: a quad a subgroup of the largest size, or as the workgroup says."""
    if lanes is not None:
        quads_per_workgroup = max(1, _SUBGROUP_WORKGROUP // lanes)
    return -(-quads // quads_per_workgroup)
