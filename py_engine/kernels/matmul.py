"""Products with a weight matrix: GEMV for one token or a few, GEMM for a prefill chunk.

y[row] = sum over columns of w[row, column] * x[column]; in a GEMV a norm of x is folded in, and
what a branch adds to x (`GemvInput`). An `Epilogue` says what becomes of y on its way out.

A matrix may lie in several parts, each of some of its rows: a kernel of a part writes its outputs
where they belong in the whole.

Cost: reads every weight once (GEMV, whatever its number of tokens), or once for every 4 or 8 tokens
(subgroups), for every 32 (small tile), or for as many as a `GemmTile` has.
"""

from __future__ import annotations

from dataclasses import replace

from py_engine.chat_config import ActivationDtype
from py_engine.gpu.types import SLICE_ALIGNMENT, Binding, KernelSpec
from py_engine.kernels.formats import WeightFormat
from py_engine.kernels.gemv_forms import folds_branch, form_of
from py_engine.kernels.gemv_input import GemvInput
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import STORE, Epilogue, MatrixProduct, matrix_product
from py_engine.kernels.tuning import PLAIN, GemmTile, GemvForm, Tuning
from py_engine.kernels.wgsl import STATE, STATE_WORDS, SUBGROUP_DIRECTIVES, kernel_spec

_QUAD = 4
_SUBGROUP_WORKGROUP = 64
_PLAIN_WORKGROUP = 32
_QUADS_WORKGROUP = 16

MAX_BATCH = _PLAIN_WORKGROUP // _QUAD
"""Tokens of a GEMV: without subgroups, threads finish four rows of a token each."""

_BATCH_ALIGNMENT = SLICE_ALIGNMENT // 4


def batch_stride(width: int) -> int:
    """Return the floats from one token's row to the next in a batch: each can be a slice."""
    return -(-width // _BATCH_ALIGNMENT) * _BATCH_ALIGNMENT


MAX_GROUPS = 65535
"""Workgroups in one dimension of a grid, on every adapter."""


def gemv(
    label: str,
    weight_format: WeightFormat,
    rows: int,
    columns: int,
    *,
    epilogue: Epilogue = STORE,
    norm: Norm | None = None,
    branch_norm: Norm | None = None,
    first_output: int = 0,
    n_outputs: int | None = None,
    batch: int = 1,
    tuning: Tuning = PLAIN,
) -> KernelSpec:
    """Build a decode product of one token, or of `batch` tokens, at most MAX_BATCH.

    Shapes: weights (rows, columns), x f32 (columns,), the norm's buffers, bias f32 (n_outputs,) or
    when gated (2 n_outputs,), output f32 (n_outputs,). Outputs from `first_output` on are written;
    `n_outputs` is None for a matrix in one part. Of a batch, x and output have `batch_stride`
    floats a token. A branch with `branch_norm` behind it, like x with that norm's weight, is added
    to x on the fly where `folds_branch` says that it can be.
    """
    if branch_norm is not None:
        assert folds_branch(weight_format, rows, columns, branch_norm, tuning, batch)
    given = GemvInput(norm, branch_norm)
    product = matrix_product(weight_format, rows, columns, epilogue, first_output, n_outputs)
    form = form_of(weight_format, rows, columns, norm, tuning)
    if form is not None:
        product = replace(product, activation_dtype=form.activation_dtype)
    if form is None or not form.is_team or batch > 1:
        product = _by_subgroups(product, tuning)
    if batch > 1:
        return _batch_gemv(label, product, given, form, batch, tuning)
    if form is not None and form.has_quads:
        return _quads_gemv(label, product, given, form, tuning)
    if form is not None and form.is_team:
        return _team_gemv(label, product, given, form, tuning)
    subgroups = tuning.lanes is not None
    variant = "subgroup" if subgroups else "workgroup"
    return _gemv_kernel(
        label,
        product,
        given,
        before_norm=(f"total_{variant}",),
        after_norm=("gemv_accumulate", f"gemv_{variant}"),
        constants={"WORKGROUP": _SUBGROUP_WORKGROUP if subgroups else _PLAIN_WORKGROUP},
        groups=product.groups(_subgroups(_SUBGROUP_WORKGROUP, tuning.lanes)),
        directives=SUBGROUP_DIRECTIVES if subgroups else (),
    )


def _by_subgroups(product: MatrixProduct, tuning: Tuning) -> MatrixProduct:
    """Return how a subgroup that has whole rows unpacks their weights."""
    return replace(product, masks_codes=tuning.masks_codes and tuning.lanes is not None)


def _subgroups(workgroup: int, lanes: int | None) -> int:
    """Return how many subgroups of the largest size a workgroup has; 1 without subgroups."""
    return 1 if lanes is None else max(1, workgroup // lanes)


def _gemv_kernel(
    label: str,
    product: MatrixProduct,
    given: GemvInput,
    *,
    before_norm: tuple[str, ...] = (),
    after_norm: tuple[str, ...],
    constants: dict[str, int],
    groups: int,
    directives: tuple[str, ...],
    batch: int = 1,
) -> KernelSpec:
    """Build a product of one token or a few from the snippets and constants of its form.

    A form has snippets before those of the norm and after them.
    """
    width, height = _grid(groups)
    n_inputs, n_outputs = product.columns, product.n_outputs
    if batch > 1:
        n_inputs, n_outputs = batch_stride(n_inputs), batch_stride(n_outputs)
    return kernel_spec(
        "gemv",
        label,
        snippets=(
            *product.snippets,
            *given.block,
            product.operand,
            *before_norm,
            *given.normed,
            *after_norm,
        ),
        bindings=(
            *product.weights,
            *given.bindings(product.columns, batch * n_inputs),
            *product.outputs(batch * n_outputs),
        ),
        constants={
            **product.constants,
            **constants,
            **given.constants(n_inputs),
            "GROUPS_X": width,
            "BATCH": batch,
            "INPUT_STRIDE": n_inputs // 4,
            "OUTPUT_STRIDE": n_outputs,
        },
        groups_x=width,
        groups_y=height,
        directives=(*directives, *product.directives),
    )


def _grid(groups: int) -> tuple[int, int]:
    """Return width and height of a grid of at least so many workgroups.

    A vocabulary of 262,144 has more than fit into one dimension.
    """
    height = -(-groups // MAX_GROUPS)
    return -(-groups // height), height


def _quads_gemv(
    label: str, product: MatrixProduct, given: GemvInput, form: GemvForm, tuning: Tuning
) -> KernelSpec:
    quads = form.rows // _QUAD
    return _gemv_kernel(
        label,
        product,
        given,
        before_norm=("total_subgroup",),
        after_norm=("gemv_quads",),
        constants={"WORKGROUP": form.workgroup, "QUADS_EACH": quads},
        groups=product.groups(quads * _subgroups(form.workgroup, tuning.lanes)),
        directives=SUBGROUP_DIRECTIVES,
    )


def _batch_gemv(
    label: str,
    product: MatrixProduct,
    given: GemvInput,
    form: GemvForm | None,
    batch: int,
    tuning: Tuning,
) -> KernelSpec:
    assert batch <= MAX_BATCH
    subgroups = tuning.lanes is not None
    variant = "subgroup" if subgroups else "workgroup"
    quads, workgroup = 1, _SUBGROUP_WORKGROUP if subgroups else _PLAIN_WORKGROUP
    kernel: tuple[str, ...] = ("gemv_batch_accumulate", f"gemv_batch_{variant}")
    if form is not None and form.has_quads:
        quads, workgroup, kernel = (
            form.rows // _QUAD,
            form.workgroup,
            ("of_lane", "gemv_batch_quads"),
        )
    return _gemv_kernel(
        label,
        product,
        given,
        before_norm=(f"total_{variant}",),
        after_norm=kernel,
        constants={"WORKGROUP": workgroup, "QUADS_EACH": quads},
        groups=product.groups(quads * _subgroups(workgroup, tuning.lanes)),
        directives=SUBGROUP_DIRECTIVES if subgroups else (),
        batch=batch,
    )


def _team_gemv(
    label: str, product: MatrixProduct, given: GemvInput, form: GemvForm, tuning: Tuning
) -> KernelSpec:
    lanes = tuning.lanes or 1
    teams = form.workgroup // lanes // form.split
    assert teams, f"{form} is too small for subgroups of {lanes}"
    return _gemv_kernel(
        label,
        product,
        given,
        before_norm=("total_staged",) if given.branch_norm else (),
        after_norm=("gemv_team", *_team_input(form)),
        constants={
            "WORKGROUP": form.workgroup,
            "LANES": lanes,
            "R": form.rows,
            "SPLIT": form.split,
            "UNROLL": form.unroll,
        },
        groups=-(-product.quads * _QUAD // form.rows // teams),
        directives=SUBGROUP_DIRECTIVES,
    )


def _team_input(form: GemvForm) -> tuple[str, ...]:
    """Return the snippets by which a team reads x."""
    if form.int8:
        return ("gemv_input_staged", "gemv_stage_int8")
    staged = ("gemv_input_staged", "gemv_stage_float")
    return ("gemv_input_float", *(staged if form.staged else ("gemv_input_storage",)))


_TILE_STAGES: dict[ActivationDtype, tuple[str, ...]] = {
    "float32": (),
    "float16": ("tile_blocks", "gemm_tile_f16"),
    "int8": ("operand_int8", "tile_blocks", "gemm_tile_int8"),
}
"""How a tile's blocks are brought into workgroup memory and multiplied where x is rounded."""


def _tile(product: MatrixProduct, tuning: Tuning) -> GemmTile | None:
    """Return the tile that `tuning` asks for; None for other formats than one in 8 bits is for."""
    tile = tuning.gemm_tile(product.rows, product.columns)
    is_int8 = tile is not None and tile.activation_dtype == "int8"
    return None if is_int8 and not product.has_codes else tile


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
    lanes, tile = tuning.lanes, _tile(product, tuning)
    if tile is not None:
        product = replace(product, activation_dtype=tile.activation_dtype)
    constants = {**product.constants, "WORKGROUP": _SUBGROUP_WORKGROUP, **STATE_WORDS}
    directives: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    if tile is not None:
        variant, tokens_per_group = "gemm_tile", tile.tokens
        directives, shared = product.directives, _TILE_STAGES[tile.activation_dtype]
        if shared:
            variant = "gemm_tile_rounded"
        constants |= tile.constants
        groups = product.groups(tile.rows // 4)
    elif lanes is not None:
        product = _by_subgroups(product, tuning)
        quads, workgroup = tuning.gemm_quads, _SUBGROUP_WORKGROUP
        variant, tokens_per_group = "gemm_subgroup", 4
        if quads > 1:
            variant, tokens_per_group, workgroup = "gemm_quads", 8, _QUADS_WORKGROUP
            shared = ("of_lane",)
        constants |= {"WORKGROUP": workgroup, "QUADS_EACH": quads}
        groups = product.groups(quads * _subgroups(workgroup, lanes))
        directives = SUBGROUP_DIRECTIVES
    else:
        variant, tokens_per_group = "gemm_workgroup", 32
        groups = product.groups(8)
    return kernel_spec(
        "gemm",
        label,
        snippets=(*product.snippets, "input_block", *shared, variant),
        bindings=(
            *product.weights,
            Binding("x", "read", f"array<vec4f, {max_tokens * columns // 4}>"),
            STATE,
            *product.outputs(max_tokens * product.n_outputs),
        ),
        constants=constants,
        groups_x=groups,
        tokens_per_group=tokens_per_group,
        directives=directives,
    )
