"""RMSNorm and LayerNorm, as kernels of rows run them and as a GEMV folds them into its input.

RMSNorm: Zhang and Sennrich 2019, eq. 4. LayerNorm: Ba et al. 2016. `eps` is added to the mean
square, or to the variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from py_engine.gpu.types import Binding


@dataclass(frozen=True)
class Norm:
    """A norm over a row: its kind, `eps`, and whether a bias follows the weight.

    Its buffers are `norm` f32 (columns,) and, with `bias`, `norm_bias` f32 (columns,).
    """

    kind: Literal["rms", "layer"]
    eps: float
    bias: bool = False

    def bindings(self, columns: int) -> tuple[Binding, ...]:
        """Return the buffers of a norm over rows of `columns`."""
        names = ("norm", "norm_bias") if self.bias else ("norm",)
        return tuple(Binding(name, "read", f"array<vec4f, {columns // 4}>") for name in names)

    @property
    def shift(self) -> str:
        """The snippet of the bias."""
        return "norm_shift" if self.bias else "norm_shift_none"


def branch_bindings(columns: int, n_floats: int) -> tuple[Binding, ...]:
    """Return the buffers of a branch whose norm is folded in where its output is read.

    They are `branch`, its output of so many floats, and `branch_norm` f32 (columns,).
    """
    return (
        Binding("branch", "read", f"array<vec4f, {n_floats // 4}>"),
        Binding("branch_norm", "read", f"array<vec4f, {columns // 4}>"),
    )


def branch_constants(norm: Norm, stride: int) -> dict[str, int | float]:
    """Return what branch.wgsl knows of a branch with `norm` behind it, of rows `stride` apart."""
    assert norm.kind == "rms" and not norm.bias, "a branch's norm is folded in without a mean"
    return {"BRANCH_EPSILON": float(norm.eps), "BRANCH_STRIDE": stride // 4}
