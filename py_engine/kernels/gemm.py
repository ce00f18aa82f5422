"""Products of a prefill chunk with a weight matrix.

As in `kernels/gemv.py`, but without norms, and for many tokens at once. Cost: reads every weight
once for every 4 or 8 tokens (subgroups), for every 32 (small tile), or for as many as a `GemmTile`
has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from py_engine.chat_config import ActivationDtype
from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.formats import WeightFormat
from py_engine.kernels.forms import GemmTile
from py_engine.kernels.product import (
    QUAD,
    QUADS_WORKGROUP,
    STORE,
    SUBGROUP_WORKGROUP,
    Epilogue,
    MatrixProduct,
    matrix_product,
    subgroups_in,
)
from py_engine.kernels.tuning import PLAIN, Tuning
from py_engine.kernels.wgsl import STATE, STATE_WORDS, SUBGROUP_DIRECTIVES, kernel_spec

_TILE_STAGES: dict[ActivationDtype, tuple[str, ...]] = {
    "float32": ("gemm_tile",),
    "float16": ("tile_blocks", "gemm_tile_f16", "gemm_tile_rounded"),
    "int8": ("operand_int8", "codes_at", "tile_blocks", "gemm_tile_int8", "gemm_tile_rounded"),
}
"""A tile's kernel: where x is rounded, with how blocks are staged and multiplied before it."""


@dataclass(frozen=True)
class _Form:
    """A kernel's WGSL, and the quads of rows and the tokens that one of its workgroups has."""

    product: MatrixProduct
    snippets: tuple[str, ...]
    quads: int
    tokens: int
    constants: Mapping[str, int]
    directives: tuple[str, ...] = ()


def gemm(
    label: str,
    weight_format: WeightFormat,
    rows: int,
    columns: int,
    max_tokens: int,
    *,
    epilogue: Epilogue = STORE,
    first_output: int = 0,
    n_outputs: int | None = None,
    tuning: Tuning = PLAIN,
) -> KernelSpec:
    """Build a prefill product of up to `max_tokens` tokens; `state` holds how many there are.

    Shapes: weights (rows, columns), x f32 (max_tokens, columns), bias as in `gemv`, output f32
    (max_tokens, n_outputs). Rows of tokens that are not there stay untouched.
    """
    product = matrix_product(weight_format, rows, columns, epilogue, first_output, n_outputs)
    form = _form(product, tuning)
    product = form.product
    return kernel_spec(
        "gemm",
        label,
        snippets=(*product.snippets, "input_block", *form.snippets),
        bindings=(
            *product.weights,
            Binding("x", "read", f"array<vec4f, {max_tokens * columns // 4}>"),
            STATE,
            *product.outputs(max_tokens * product.n_outputs),
        ),
        constants={**product.constants, **STATE_WORDS, **form.constants},
        groups_x=product.groups(form.quads),
        tokens_per_group=form.tokens,
        directives=form.directives,
    )


def _form(product: MatrixProduct, tuning: Tuning) -> _Form:
    tile = tuning.gemm_tile(product.rows, product.columns)
    # Only 4-bit codes are multiplied in 8 bits.
    if tile is not None and (tile.activation_dtype != "int8" or product.has_codes):
        return _by_tile(product, tile)
    if tuning.lanes is None:
        return _Form(product, ("gemm_workgroup",), 8, 32, {"WORKGROUP": SUBGROUP_WORKGROUP})
    return _by_subgroups(product, tuning.lanes, tuning)


def _by_tile(product: MatrixProduct, tile: GemmTile) -> _Form:
    product = replace(product, activation_dtype=tile.activation_dtype)
    return _Form(
        product,
        _TILE_STAGES[tile.activation_dtype],
        tile.rows // QUAD,
        tile.tokens,
        tile.constants,
        product.directives,
    )


def _by_subgroups(product: MatrixProduct, lanes: int, tuning: Tuning) -> _Form:
    product = replace(product, masks_codes=tuning.masks_codes)
    quads, workgroup, tokens = 1, SUBGROUP_WORKGROUP, 4
    snippets: tuple[str, ...] = ("gemm_subgroup",)
    if tuning.gemm_quads > 1:
        quads, workgroup, tokens = tuning.gemm_quads, QUADS_WORKGROUP, 8
        snippets = (*product.operand(), product.column, "quads_of_tokens", "gemm_quads")
    return _Form(
        product,
        snippets,
        quads * subgroups_in(workgroup, lanes),
        tokens,
        {"WORKGROUP": workgroup, "QUADS_EACH": quads},
        SUBGROUP_DIRECTIVES,
    )
