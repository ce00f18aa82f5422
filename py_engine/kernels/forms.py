"""Forms of kernels: what there is to choose from; `kernels/tuning.py` chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from py_engine.chat_config import ActivationDtype


@dataclass(frozen=True)
class SplitKeys:
    """Decode's attention with its keys shared out; see `kernels/attention_split.py`.

    There are about `workgroups` workgroups of `workgroup` threads over all KV heads, each with at
    least `least_keys` keys. As many as `alone_keys` are not shared out: one workgroup has them, and
    nothing is left to join. Parts of so many keys may be joined by the product behind attention, a
    dispatch of which may read `joined_bytes` of them in all. `by_subgroups` relies on all subgroups
    having as many lanes. Where queries share keys, workgroups are of another size.
    """

    workgroup: int
    workgroups: int
    least_keys: int
    alone_keys: int
    joined_bytes: int = 0
    by_subgroups: bool = True


@dataclass(frozen=True)
class GemvForm:
    """A product of one token in which a team of `split` subgroups has `rows` rows, 2, 4 or 8.

    With a multiple of 8 rows that is not `staged` each subgroup has so many of its own, in every
    format. Lanes take `unroll` blocks at a time. With `staged` a workgroup brings x into its memory
    once. With `int8` x is rounded to 8 bits for integer dot products; teams then have it staged,
    and 4 rows without that are the plain form, subgroups or not, with such an x.
    """

    rows: int
    workgroup: int
    split: int = 1
    unroll: int = 1
    staged: bool = False
    int8: bool = False

    @property
    def activation_dtype(self) -> ActivationDtype:
        """What x is rounded to."""
        return "int8" if self.int8 else "float32"

    @property
    def has_quads(self) -> bool:
        """Whether each subgroup has several quads of rows of its own."""
        return self.rows > 4 and not self.staged

    @property
    def is_team(self) -> bool:
        """Whether teams of subgroups share rows; else it has quads or is the plain form."""
        return self.staged or not (self.has_quads or self.int8)

    def teams(self, lanes: int) -> int:
        """Return the teams of a workgroup."""
        return self.workgroup // lanes // self.split

    def workgroup_bytes(self, columns: int, lanes: int) -> int:
        """Return what a team's form takes of workgroup memory where x has so many columns."""
        subgroups = self.workgroup // lanes
        of_x = (columns if self.int8 else 4 * columns) + columns // 32 * (8 if self.int8 else 4)
        combined = subgroups * (4 + 16 * -(-self.rows // 4))
        return (of_x + 4 * subgroups if self.staged else 0) + (combined if self.split > 1 else 0)


PLAIN_INT8 = GemvForm(4, 64, int8=True)
"""The form that runs everywhere, with x in 8 bits."""


@dataclass(frozen=True)
class GemvForms:
    """Which form a matrix gets: `deep` one of at least `deep_ratio` columns a row, `wide` another
    of at least `wide_rows` rows, `narrow` the others."""

    wide: GemvForm
    narrow: GemvForm
    deep: GemvForm
    wide_rows: int
    deep_ratio: int

    @staticmethod
    def only(form: GemvForm) -> GemvForms:
        """Return what gives every matrix the same form."""
        return GemvForms(form, form, form, wide_rows=0, deep_ratio=1 << 30)

    def choose(self, rows: int, columns: int) -> GemvForm:
        """Return the form for a matrix, or a part of one."""
        if columns >= self.deep_ratio * rows:
            return self.deep
        return self.wide if rows >= self.wide_rows else self.narrow


@dataclass(frozen=True)
class GemmTile:
    """Outputs of a workgroup of 256 threads in a GEMM for GPUs, and the columns of a step.

    `rows` are a multiple of 64 and `tokens` of 16; each thread sums rows / 16 x tokens / 16 outputs
    in registers. `columns` is 16 or 32: so many of both, in f32 because f16 would round x, must fit
    into 16 KiB of workgroup memory, which is all that an adapter promises. In tiles of "float16"
    and "int8" both are in that `activation_dtype`, and `columns` a multiple of 32.
    """

    rows: int = 64
    tokens: int = 64
    columns: int = 32
    activation_dtype: ActivationDtype = "float32"

    @property
    def constants(self) -> dict[str, int]:
        """What the kernel's WGSL knows of the tile."""
        return {
            "TILE_ROWS": self.rows,
            "TILE_TOKENS": self.tokens,
            "TILE_COLUMNS": self.columns,
        }


@dataclass(frozen=True)
class AttentionTile:
    """Attention of a chunk that brings keys through workgroup memory (`attention_tile.wgsl`).

    A thread may keep so many `floats` of queries and of their sums in registers.
    """

    floats: int

    @property
    def activation_dtype(self) -> ActivationDtype:
        """What queries are rounded to."""
        return "float32"


ProductKind = Literal["gemv", "gemm", "attention"]

Product = tuple[ProductKind, int, int]
"""A product of one token or of a chunk, with the rows and columns of its matrix, or of a part; or
attention of a chunk, with the number of heads and their size."""

Form = GemvForm | GemmTile | AttentionTile

Forms = Mapping[Product, Form | None]
"""The forms of products; None is the one that runs everywhere."""
