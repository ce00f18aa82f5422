"""What a GEMV multiplies: x, with what is folded into it."""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.gpu.types import Binding
from py_engine.kernels.norm import Norm, branch_bindings, branch_constants


@dataclass(frozen=True)
class AttentionParts:
    """What `attention_split` leaves of a token: `n_parts` of each head of `head_dim` elements.

    The buffer is its `split_parts`, of all heads. A head has whole blocks of 32 elements.
    """

    head_dim: int
    n_parts: int

    def nbytes(self, columns: int) -> int:
        """Return the bytes of the parts that join to so many columns."""
        return columns // self.head_dim * self.n_parts * 4 * (self.head_dim + 4)

    def binding(self, columns: int) -> Binding:
        """Return their buffer."""
        return Binding("split_parts", "read", f"array<vec4f, {self.nbytes(columns) // 16}>")


@dataclass(frozen=True)
class GemvInput:
    """x, or x with what a branch adds to it, through `norm` if there is one.

    `branch_norm` is the RMSNorm behind the branch, whose output no kernel has added to x yet: x
    stays as it is. Then `norm` is none or an RMSNorm. See `branch_bindings` for the buffers. With
    `parts` x is what these join to, and there are no norms.
    """

    norm: Norm | None = None
    branch_norm: Norm | None = None
    parts: AttentionParts | None = None

    def __post_init__(self) -> None:
        is_rms = self.norm is None or self.norm.kind == "rms"
        assert is_rms or self.branch_norm is None, "a branch is folded in before RMSNorm alone"
        has_norms = self.norm or self.branch_norm
        assert not (self.parts and has_norms), "attention's output has no norm"

    @property
    def block(self) -> tuple[str, ...]:
        """The snippets of a block of x."""
        if self.parts is not None:
            return ("input_parts",)
        return ("input_block",) if self.branch_norm is None else ("branch", "input_branch")

    @property
    def normed(self) -> tuple[str, ...]:
        """The snippets that fold the norm into the product.

        RMSNorm's scale comes at the end, where a bias of the norm would be scaled too.
        """
        if self.norm is not None and self.norm.kind == "layer":
            return (self.norm.shift, "statistics_layer", "input_norm_layer")
        statistics = () if self.branch_norm else ("input_statistics_none",)
        if self.norm is None:
            return (*statistics, "input_norm_none")
        assert not self.norm.bias, "a GEMV folds RMSNorm without a bias"
        return (*statistics, "input_norm_rms")

    def bindings(self, columns: int, n_floats: int) -> tuple[Binding, ...]:
        """Return the buffers: x of so many floats first, or the parts."""
        if self.parts is not None:
            return (self.parts.binding(columns),)
        x = Binding("x", "read", f"array<vec4f, {n_floats // 4}>")
        branch = branch_bindings(columns, n_floats) if self.branch_norm else ()
        return (x, *branch, *(self.norm.bindings(columns) if self.norm else ()))

    def constants(self, stride: int) -> dict[str, int | float | bool | str]:
        """Return what kernels know of it; tokens' rows are `stride` floats apart."""
        of_norm = {"EPSILON": float(self.norm.eps), "norm": self.norm.kind} if self.norm else {}
        of_branch = branch_constants(self.branch_norm, stride) if self.branch_norm else {}
        parts = self.parts
        of_parts = {"HEAD_DIM": parts.head_dim, "PARTS": parts.n_parts} if parts else {}
        return {**of_norm, **of_branch, **of_parts}
