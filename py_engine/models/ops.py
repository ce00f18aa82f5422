"""What models compute, piece by piece, as dispatches of kernels over named buffers.

The same pieces serve one token and many: a product is a GEMV with the norm of its input folded in,
or a GEMM. A matrix in several parts takes a dispatch for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.gemm import gemm
from py_engine.kernels.gemv import gemv
from py_engine.kernels.gemv_forms import folds_branch, joinable_parts
from py_engine.kernels.gemv_input import AttentionParts
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import Epilogue
from py_engine.kernels.rows import Ids, Target, embed, row_norm
from py_engine.kernels.tuning import Tuning
from py_engine.weights.layouts import Layouts, MatrixPart, part_buffers

_OF_STEP = {name: name for name in ("state", "rows")}
"""What tells kernels of a step's tokens, where they are told nothing else."""


@dataclass(frozen=True)
class Step:
    """One dispatch: a kernel over buffers, named in the order of its bindings."""

    kernel: KernelSpec
    buffers: tuple[str, ...]
    n_tokens: int = 1


class Ops:
    """Pieces for one token (`max_tokens` None), or for up to so many tokens at once.

    With a `batch` the former are for so many tokens.

    Matrices and norms are named by role. `rows` are the names of activations, which stand for
    buffers whose names begin with `prefix`; so do the labels of kernels. `columns` has the widths
    of those that are multiplied by matrices, which may be more than what a product writes of them.
    """

    def __init__(
        self,
        layouts: Layouts,
        norm: Norm,
        columns: Mapping[str, int],
        *,
        tuning: Tuning,
        max_tokens: int | None,
        prefix: str = "",
        rows: frozenset[str] = frozenset(),
        batch: int = 1,
    ) -> None:
        self.max_tokens = max_tokens
        self._batch = batch
        self._layouts = layouts
        self._norm = norm
        self._columns = columns
        self._tuning = tuning
        self._prefix = prefix
        self._rows = rows
        self._kernels: dict[tuple[Any, ...], KernelSpec] = {}

    def embedding(
        self,
        role: str,
        ids: Ids,
        buffer: str,
        *,
        label: str = "",
        scale: float = 1.0,
        add: bool = False,
    ) -> Iterator[Step]:
        """Gather rows of a table into "x", or add them to it; `buffer` has the ids."""
        parts = self._layouts[role]
        for number, part in enumerate(parts):
            kernel = self.kernel(
                embed,
                label or role,
                weight_format=part.format,
                rows=part.rows,
                hidden_size=self._columns["x"],
                max_tokens=self.max_tokens or 1,
                ids=ids,
                first_row=part.first_output,
                table_rows=sum(each.rows for each in parts),
                scale=scale,
                add=add,
                batch=self._batch,
            )
            buffers = {"ids": buffer, "output": "x"}
            yield self.step(kernel, buffers | part_buffers(role, number, part))

    def product(
        self,
        role: str,
        source: str,
        target: str,
        epilogue: Epilogue,
        *,
        norm: str = "",
        branch_norm: str = "",
        attention_parts: AttentionParts | None = None,
        label: str = "",
        n_rows: int | None = None,
    ) -> Iterator[Step]:
        """Multiply by a matrix, or by its first `n_rows` rows; `norm` is folded in (one token).

        So is what "branch" adds to the source through `branch_norm`, if `folds_branch`. With
        `attention_parts` the source is what these join to, which lie in "split_parts".
        """
        parts = _first_rows(self._layouts[role], n_rows)
        rows = sum(part.rows for part in parts)
        written = rows // 2 if epilogue.gated else rows
        n_outputs = self._columns.get(target, written)
        buffers = {
            "x": source,
            "split_parts": "split_parts",
            "bias": f"{role}.bias",
            "output": target,
        }
        buffers |= _norm_buffers(norm) | _branch_buffers(branch_norm)
        arguments: dict[str, Any] = {
            "columns": self._columns[source],
            "epilogue": epilogue,
            "n_outputs": n_outputs,
            "tuning": self._tuning,
        }
        if self.max_tokens is None:
            arguments |= {
                "norm": self._norm if norm else None,
                "branch_norm": self._norm if branch_norm else None,
                "parts": attention_parts,
                "batch": self._batch,
            }
        else:
            arguments["max_tokens"] = self.max_tokens
        build = gemv if self.max_tokens is None else gemm
        for number, part in enumerate(parts):
            kernel = self.kernel(
                build,
                label or last_name(role),
                weight_format=part.format,
                rows=part.rows,
                first_output=part.first_output,
                **arguments,
            )
            yield self.step(kernel, buffers | part_buffers(role, number, part))

    def folds_branch(self, role: str, source: str) -> bool:
        """Tell whether products with a matrix add what "branch" does to their source themselves."""
        return self.max_tokens is None and all(
            folds_branch(
                part.format,
                part.rows,
                self._columns[source],
                self._norm,
                self._tuning,
                self._batch,
            )
            for part in self._layouts[role]
        )

    def joinable_parts(self, role: str, source: str, head_dim: int) -> int:
        """Return how many parts of attention products with a matrix may join to their source."""
        if self.max_tokens is not None or self._batch > 1:
            return 0
        return min(
            joinable_parts(part.format, part.rows, self._columns[source], head_dim, self._tuning)
            for part in self._layouts[role]
        )

    def norm(
        self, role: str, label: str, source: str, target: str, how: Target, branch_norm: str = ""
    ) -> Step:
        """Normalise the rows of `source`: into `target`, onto what is there, or in place.

        "add_both" adds to `target` what "branch" does through `branch_norm`, too.
        """
        kernel = self.kernel(
            row_norm,
            label,
            columns=self._columns["x"],
            max_tokens=self.max_tokens or 1,
            norm=self._norm,
            target=how,
            tuning=self._tuning,
            batch=self._batch,
        )
        buffers = {"x": source, "output": target}
        return self.step(kernel, buffers | _norm_buffers(role) | _branch_buffers(branch_norm))

    def kernel(self, build: Callable[..., KernelSpec], label: str, **arguments: Any) -> KernelSpec:
        """Build a kernel, once for all layers."""
        label = self._prefix + label
        key = (build, label, *arguments.items())
        if key not in self._kernels:
            self._kernels[key] = build(label, **arguments)
        return self._kernels[key]

    def step(self, kernel: KernelSpec, buffers: Mapping[str, str]) -> Step:
        """Return the dispatch of a kernel, given the buffer of each binding by its name."""
        found = ({**_OF_STEP, **buffers}[binding.name] for binding in kernel.bindings)
        return Step(kernel, tuple(self._prefix + n if n in self._rows else n for n in found))


def last_name(role: str) -> str:
    """Return a role without the layer it is in."""
    return role.rpartition(".")[2]


def _norm_buffers(role: str) -> dict[str, str]:
    return {"norm": role, "norm_bias": f"{role}.bias"} if role else {}


def _branch_buffers(role: str) -> dict[str, str]:
    return {"branch": "branch", "branch_norm": role} if role else {}


def _first_rows(parts: tuple[MatrixPart, ...], n_rows: int | None) -> tuple[MatrixPart, ...]:
    """Return the parts that have the first `n_rows` rows of a matrix, cut to them."""
    if n_rows is None:
        return parts
    rows = (min(part.rows, n_rows - part.first_output) for part in parts)
    return tuple(replace(part, rows=n) for part, n in zip(parts, rows, strict=True) if n > 0)
