"""Kernels that move or normalise rows: embedding gather, RMSNorm, and the chunk's last row."""

from __future__ import annotations

from collections.abc import Sequence

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.formats import BLOCK, MATRIX_FORMATS, WeightFormat
from py_engine.kernels.wgsl import STATE, STATE_WORDS, SUBGROUP_DIRECTIVES, kernel_spec

_WORKGROUP = 64


def embed(
    label: str,
    weight_format: WeightFormat,
    vocabulary: int,
    hidden_size: int,
    *,
    max_tokens: int = 1,
    from_state: bool = False,
    add: bool = False,
) -> KernelSpec:
    """Build the gather of embedding rows: output f32 (max_tokens, hidden_size).

    Ids come from `tokens` u32 (max_tokens,), or with `from_state` from the token drawn last.
    An id past the vocabulary reads the last row. With `add`, rows are added to the output's.
    """
    matrix = MATRIX_FORMATS[weight_format]
    n_ids = len(STATE_WORDS) if from_state else max_tokens
    return kernel_spec(
        "embed",
        label,
        snippets=("block", *matrix.snippets, "embed"),
        bindings=(
            *matrix.bindings(vocabulary, hidden_size),
            Binding("tokens", "read", f"array<u32, {n_ids}>"),
            Binding("output", "read_write", f"array<vec4f, {max_tokens * hidden_size // 4}>"),
        ),
        constants={
            "ROWS": vocabulary,
            "COLUMNS": hidden_size,
            "BLOCKS": hidden_size // BLOCK,
            "TOKEN_OFFSET": STATE_WORDS["STATE_TOKEN"] if from_state else 0,
            "ADD": add,
            "WORKGROUP": _WORKGROUP,
            "format": weight_format,
        },
        groups_x=-(-hidden_size // 4 // _WORKGROUP),
        tokens_per_group=1,
    )


def row_norm(
    name: str,
    label: str,
    bindings: Sequence[Binding],
    hidden_size: int,
    eps: float,
    *,
    lanes: int | None,
) -> KernelSpec:
    """Build a norm of each token's row out of the snippets NAME and NAME_subgroup or _workgroup.

    With subgroups (of at most `lanes`) each has a row of its own, else a workgroup has.
    """
    subgroups = lanes is not None
    return kernel_spec(
        name,
        label,
        snippets=(name, f"{name}_subgroup" if subgroups else f"{name}_workgroup"),
        bindings=bindings,
        constants={
            "COLUMNS": hidden_size,
            "EPSILON": float(eps),
            "WORKGROUP": _WORKGROUP,
            **STATE_WORDS,
        },
        groups_x=1,
        tokens_per_group=max(1, _WORKGROUP // lanes) if lanes is not None else 1,
        directives=SUBGROUP_DIRECTIVES if subgroups else (),
    )


def rms_norm(
    label: str, hidden_size: int, max_tokens: int, eps: float, *, lanes: int | None = None
) -> KernelSpec:
    """Build RMSNorm of each token's row: x, output f32 (max_tokens, hidden_size).

    Source: Zhang and Sennrich 2019, eq. 4; `eps` is added to the mean square.
    """
    rows = f"array<vec4f, {max_tokens * hidden_size // 4}>"
    bindings = (
        Binding("x", "read", rows),
        Binding("norm", "read", f"array<vec4f, {hidden_size // 4}>"),
        STATE,
        Binding("output", "read_write", rows),
    )
    return row_norm("rms_norm", label, bindings, hidden_size, eps, lanes=lanes)


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
