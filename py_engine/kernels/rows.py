"""Kernels that move or normalise rows: embedding gather, norms, and the chunk's last row."""

from __future__ import annotations

from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.batch import ROWS, STATES, batch_stride
from py_engine.kernels.formats import BLOCK, MATRIX_FORMATS, WeightFormat
from py_engine.kernels.norm import Norm, branch_bindings, branch_constants
from py_engine.kernels.tuning import PLAIN, Tuning
from py_engine.kernels.wgsl import STATE, STATE_WORDS, SUBGROUP_DIRECTIVES, kernel_spec

Ids = Literal["tokens", "drawn", "positions"]
"""Whose rows an embedding takes: those of the tokens given, of the token drawn last, or of the
positions from the first token of this step on."""

Target = Literal["copy", "add", "add_both", "in_place"]
"""Where a norm's rows go: to the output, onto what the output holds, there with what another branch
adds, or back to where they lay."""

_WORKGROUP = 64

_ID_OFFSETS: dict[Ids, int] = {
    "tokens": 0,
    "drawn": STATE_WORDS["STATE_TOKEN"],
    "positions": STATE_WORDS["STATE_POSITION"],
}


def embed(
    label: str,
    weight_format: WeightFormat,
    rows: int,
    hidden_size: int,
    *,
    max_tokens: int = 1,
    ids: Ids = "tokens",
    first_row: int = 0,
    table_rows: int | None = None,
    scale: float = 1.0,
    add: bool = False,
    batch: int = 1,
) -> KernelSpec:
    """Build the gather of embedding rows: output f32 (max_tokens, hidden_size).

    The buffer `ids` is u32 (max_tokens,) for "tokens", otherwise `state`. The weights are `rows`
    rows of a table from `first_row` on; only tokens whose row is among them are written. An id
    past the table's `table_rows` (None: those of a table in one part) reads its last row. Values
    are multiplied by `scale`. With `add`, rows are added to the output's. A `batch` of drawn tokens
    has the states of all and `rows` (see `Batch`), and output rows `batch_stride` apart.
    """
    matrix, is_batch = MATRIX_FORMATS[weight_format], batch > 1
    n_ids = max_tokens if ids == "tokens" else len(STATE_WORDS)
    stride = batch_stride(hidden_size) if is_batch else hidden_size
    n_outputs = max(max_tokens, batch) * stride
    return kernel_spec(
        "embed",
        label,
        snippets=("block", *matrix.snippets, "ids_of_batch" if is_batch else "ids_alone", "embed"),
        bindings=(
            *matrix.bindings(rows, hidden_size),
            Binding("ids", "read", STATES.type if is_batch else f"array<u32, {n_ids}>"),
            Binding("output", "read_write", f"array<vec4f, {n_outputs // 4}>"),
            *((ROWS,) if is_batch else ()),
        ),
        constants={
            "ROWS": rows,
            "COLUMNS": hidden_size,
            "BLOCKS": hidden_size // BLOCK,
            "FIRST_ROW": first_row,
            "TABLE_ROWS": rows if table_rows is None else table_rows,
            "ID_OFFSET": _ID_OFFSETS[ids],
            "BY_POSITION": ids == "positions",
            "SCALE": float(scale),
            "ADD": add,
            "ROW_STRIDE": stride,
            "BATCH": batch if is_batch else 0,
            "WORKGROUP": _WORKGROUP,
            "format": weight_format,
        },
        groups_x=-(-hidden_size // 16 // _WORKGROUP),
        tokens_per_group=1,
    )


def row_norm(
    label: str,
    columns: int,
    max_tokens: int,
    norm: Norm,
    *,
    target: Target = "copy",
    tuning: Tuning = PLAIN,
    batch: int = 1,
) -> KernelSpec:
    """Build a norm of each token's row.

    Buffers: x f32 (max_tokens, columns), the norm's, `state`, then output like x; in place they are
    the norm's, `state`, x. With "add" this is the norm of a branch's output, added onto the
    residual; with "add_both" the residual gets before that what an earlier branch adds, with such a
    norm behind it, too: `branch` and `branch_norm` are then between the norm's and `state`. With
    subgroups each has a row of its own, else a workgroup has. In place of a chunk a `batch` of
    tokens has rows `batch_stride` apart.
    """
    stride = columns if batch == 1 else batch_stride(columns)
    n_floats = max(max_tokens, batch) * stride
    rows = f"array<vec4f, {n_floats // 4}>"
    read = () if target == "in_place" else (Binding("x", "read", rows),)
    written = Binding("x" if target == "in_place" else "output", "read_write", rows)
    has_branch = target == "add_both"
    variant = "workgroup" if tuning.lanes is None else "subgroup"
    return kernel_spec(
        "row_norm",
        label,
        snippets=(
            f"total_{variant}",
            *(("branch",) if has_branch else ("row_begin_none",)),
            f"row_{target}",
            norm.shift,
            f"statistics_{norm.kind}",
            "row_norm",
            f"row_norm_{variant}",
        ),
        bindings=(
            *read,
            *norm.bindings(columns),
            *(branch_bindings(columns, n_floats) if has_branch else ()),
            STATE,
            written,
        ),
        constants={
            "COLUMNS": columns,
            "ROW_STRIDE": stride,
            "BATCH": 0 if batch == 1 else batch,
            "EPSILON": float(norm.eps),
            **(branch_constants(norm, stride) if has_branch else {}),
            "WORKGROUP": _WORKGROUP,
            **STATE_WORDS,
            "norm": norm.kind,
            "target": target,
        },
        groups_x=1,
        tokens_per_group=1 if tuning.lanes is None else max(1, _WORKGROUP // tuning.lanes),
        directives=() if tuning.lanes is None else SUBGROUP_DIRECTIVES,
    )


def last_row(label: str, hidden_size: int, max_tokens: int) -> KernelSpec:
    """Build the copy of the chunk's last row: x f32 (max_tokens, hidden_size) to (hidden_size,)."""
    return kernel_spec(
        "last_row",
        label,
        snippets=("last_row",),
        bindings=(
            Binding("x", "read", f"array<vec4f, {max_tokens * hidden_size // 4}>"),
            STATE,
            Binding("output", "read_write", f"array<vec4f, {hidden_size // 4}>"),
        ),
        constants={"COLUMNS": hidden_size, "WORKGROUP": _WORKGROUP, **STATE_WORDS},
        groups_x=-(-hidden_size // 4 // _WORKGROUP),
    )
