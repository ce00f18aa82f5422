"""What distinguishes one vision tower from another, as data.

An image becomes patches, a transformer encoder with norms before its branches (SigLIP, Zhai et al.
2023) sees all of them, and a projector makes of its patches the rows that stand for the image in
the language model's sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from py_engine.kernels.formats import BLOCK

Filter = Literal["bilinear", "bicubic"]
"""How an image is resized: PIL's filters, widened where it becomes smaller."""

N_CHANNELS = 3


@dataclass(frozen=True)
class ImageProcessing:
    """What becomes of an image's pixels, 0 to 255, once it has the tower's size.

    A value v of a channel becomes (v * rescale - mean) / std.
    """

    filter: Filter = "bilinear"
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class VisionSpec:
    """Shapes and constants of a vision tower and its projector.

    Images have `image_size` pixels a side and are cut into patches of `patch_size`. Squares of
    patches are averaged to `n_tokens` rows of `output_size`, the language model's hidden size. In
    a prompt an image is the token `begin_id`, `n_tokens` times `soft_id`, and `end_id`.
    """

    image_size: int
    patch_size: int
    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    layer_norm_eps: float
    n_tokens: int
    output_size: int
    begin_id: int
    soft_id: int
    end_id: int

    @property
    def head_dim(self) -> int:
        """Values of one head."""
        return self.hidden_size // self.n_heads

    @property
    def side(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def n_patches(self) -> int:
        """Patches of an image."""
        return self.side * self.side

    @property
    def pooled_side(self) -> int:
        """Patches along one side of a square that becomes one row."""
        return self.side // math.isqrt(self.n_tokens)

    @property
    def patch_row(self) -> tuple[int, int, int]:
        """The shape of a patch: channels, rows, columns."""
        return (N_CHANNELS, self.patch_size, self.patch_size)

    @property
    def patch_columns(self) -> int:
        """Values of a patch, filled up to what matrix kernels read at a time."""
        return filled_up(N_CHANNELS * self.patch_size**2)

    @property
    def inner_columns(self) -> int:
        """Values between the two products of an MLP, filled up likewise."""
        return filled_up(self.intermediate_size)


def filled_up(columns: int) -> int:
    """Return the columns of a matrix with the zeros that kernels need behind them."""
    return -(-columns // BLOCK) * BLOCK
