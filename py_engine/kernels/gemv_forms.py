"""Which form a product of one token has: what a tuning asks for, where that can be."""

from __future__ import annotations

from dataclasses import replace

from py_engine.kernels.formats import BLOCK, WeightFormat
from py_engine.kernels.forms import PLAIN_INT8, GemvForm
from py_engine.kernels.gemv_input import AttentionParts
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import has_codes
from py_engine.kernels.tuning import Tuning

_MOST_JOINED = 8


def form_of(
    weight_format: WeightFormat, rows: int, columns: int, norm: Norm | None, tuning: Tuning
) -> GemvForm | None:
    """Return the form that `tuning` asks for, or the plain one (in f32: None) where it cannot be.

    x in 8 bits and teams are for formats of 4-bit codes. Teams do without LayerNorm, and x must fit
    into workgroup memory if it is staged there.
    """
    form = tuning.gemv_form(rows, columns)
    if form is None:
        return None
    is_of_codes = has_codes(weight_format)
    if form.int8 and not is_of_codes:
        form = replace(form, int8=False)
    plain = PLAIN_INT8 if form.int8 else None
    if tuning.lanes is None:
        return plain
    if not form.is_team:
        return form
    if not is_of_codes or (norm is not None and norm.kind != "rms"):
        return plain
    needed = form.workgroup_bytes(columns, tuning.lanes)
    return form if needed <= tuning.workgroup_bytes else plain


def folds_branch(
    weight_format: WeightFormat,
    rows: int,
    columns: int,
    norm: Norm,
    tuning: Tuning,
    batch: int = 1,
) -> bool:
    """Tell whether a GEMV adds what a branch does where it reads x; `norm` is behind the branch.

    It reads the branch twice, and a weight, which pays where many rows share that: not in the plain
    form, which is also what a batch has in place of teams.
    """
    form = form_of(weight_format, rows, columns, norm, tuning)
    if form is None or norm.kind != "rms" or norm.bias:
        return False
    return form.has_quads or (form.staged and batch == 1)


def joinable_parts(
    weight_format: WeightFormat, rows: int, columns: int, head_dim: int, tuning: Tuning
) -> int:
    """Return how many parts of attention a GEMV of one token may join where it reads x, 0 for none.

    Each workgroup reads all of them, or each subgroup with rows of its own, which pays where many
    rows share that (they have x in workgroup memory, or several quads), while it is little in all
    (`SplitKeys.joined_bytes`), and while parts are few, which a thread reads one after the other.
    """
    form, lanes = form_of(weight_format, rows, columns, None, tuning), tuning.lanes
    if form is None or lanes is None or tuning.split_keys is None or head_dim % BLOCK:
        return 0
    if not (form.staged or form.has_quads):
        return 0
    readers = -(-rows // (form.rows * (form.teams(lanes) if form.staged else 1)))
    part = readers * AttentionParts(head_dim, 1).nbytes(columns)
    return min(tuning.split_keys.joined_bytes // part, _MOST_JOINED)
