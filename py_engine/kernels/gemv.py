"""Products of one token, or of a few, with a weight matrix.

y[row] = sum over columns of w[row, column] * x[column]; folded in are a norm of x, what a branch
adds to x, and what joins parts of attention to x (`GemvInput`). An `Epilogue` says what becomes of
y on its way out.

A matrix may lie in several parts, each of some of its rows: a kernel of a part writes its outputs
where they belong in the whole.

Cost: reads every weight once, whatever the number of tokens.
"""

from __future__ import annotations

from dataclasses import replace

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.batch import MAX_BATCH, batch_stride
from py_engine.kernels.formats import BLOCK, WeightFormat
from py_engine.kernels.forms import GemvForm
from py_engine.kernels.gemv_forms import folds_branch, form_of
from py_engine.kernels.gemv_input import AttentionParts, GemvInput
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import (
    QUAD,
    STORE,
    SUBGROUP_WORKGROUP,
    Epilogue,
    MatrixProduct,
    matrix_product,
    subgroups_in,
)
from py_engine.kernels.tuning import PLAIN, Tuning
from py_engine.kernels.wgsl import SUBGROUP_DIRECTIVES, kernel_spec

# Of a batch's tokens each has four threads that finish its rows.
_PLAIN_WORKGROUP = MAX_BATCH * QUAD

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
    parts: AttentionParts | None = None,
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
    to x on the fly where `folds_branch` says that it can be; `parts` of attention, as many as
    `joinable_parts` says, are joined to x.
    """
    if branch_norm is not None:
        assert folds_branch(weight_format, rows, columns, branch_norm, tuning, batch)
    given = GemvInput(norm, branch_norm, parts)
    product = matrix_product(weight_format, rows, columns, epilogue, first_output, n_outputs)
    form = form_of(weight_format, rows, columns, norm, tuning)
    assert parts is None or (batch == 1 and parts.head_dim % BLOCK == 0)
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
        constants={"WORKGROUP": SUBGROUP_WORKGROUP if subgroups else _PLAIN_WORKGROUP},
        groups=product.groups(subgroups_in(SUBGROUP_WORKGROUP, tuning.lanes)),
        directives=SUBGROUP_DIRECTIVES if subgroups else (),
    )


def _by_subgroups(product: MatrixProduct, tuning: Tuning) -> MatrixProduct:
    """Return how a subgroup that has whole rows unpacks their weights."""
    return replace(product, masks_codes=tuning.masks_codes and tuning.lanes is not None)


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
    by_word: bool = False,
) -> KernelSpec:
    """Build a product of one token or a few from the snippets and constants of its form.

    A form has snippets before those of the norm and after them. Codes are unpacked `by_word` where
    that was measured to be faster for one token.
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
            *product.operand(by_word=by_word),
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
    quads = form.rows // QUAD
    return _gemv_kernel(
        label,
        product,
        given,
        before_norm=("total_subgroup",),
        after_norm=(product.column, "gemv_quads"),
        constants={"WORKGROUP": form.workgroup, "QUADS_EACH": quads},
        groups=product.groups(quads * subgroups_in(form.workgroup, tuning.lanes)),
        directives=SUBGROUP_DIRECTIVES,
        by_word=True,
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
    quads, workgroup = 1, SUBGROUP_WORKGROUP if subgroups else _PLAIN_WORKGROUP
    kernel: tuple[str, ...] = ("gemv_batch_accumulate", f"gemv_batch_{variant}")
    if form is not None and form.has_quads:
        quads, workgroup, kernel = (
            form.rows // QUAD,
            form.workgroup,
            (product.column, "quads_of_tokens", "gemv_batch_quads"),
        )
    return _gemv_kernel(
        label,
        product,
        given,
        before_norm=(f"total_{variant}",),
        after_norm=kernel,
        constants={"WORKGROUP": workgroup, "QUADS_EACH": quads},
        groups=product.groups(quads * subgroups_in(workgroup, tuning.lanes)),
        directives=SUBGROUP_DIRECTIVES if subgroups else (),
        batch=batch,
    )


def _team_gemv(
    label: str, product: MatrixProduct, given: GemvInput, form: GemvForm, tuning: Tuning
) -> KernelSpec:
    lanes = tuning.lanes or 1
    teams = form.teams(lanes)
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
        groups=-(-product.quads * QUAD // form.rows // teams),
        directives=SUBGROUP_DIRECTIVES,
        by_word=True,
    )


def _team_input(form: GemvForm) -> tuple[str, ...]:
    """Return the snippets by which a team reads x."""
    if form.int8:
        return ("gemv_input_staged", "gemv_stage_int8")
    return ("gemv_input_staged", "gemv_stage_float") if form.staged else ("gemv_input_storage",)
