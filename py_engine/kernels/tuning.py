"""Which form of a kernel an adapter gets.

What kernels compute is the same in every form. A form that pays was measured on an adapter; all
others have those that run everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.gpu.types import AdapterInfo, Limits


@dataclass(frozen=True)
class GemmTile:
    """Outputs of a workgroup of 256 threads in a GEMM for GPUs, and the columns of a step.

    `rows` are a multiple of 64 and `tokens` of 16; each thread sums rows / 16 x tokens / 16 outputs
    in registers. `columns` is 16 or 32: so many of both, in f32 because f16 would round x, must fit
    into 16 KiB of workgroup memory, which is all that an adapter promises.
    """

    rows: int = 64
    tokens: int = 64
    columns: int = 32

    @property
    def constants(self) -> dict[str, int]:
        """What the kernel's WGSL knows of the tile."""
        return {
            "TILE_ROWS": self.rows,
            "TILE_TOKENS": self.tokens,
            "TILE_COLUMNS": self.columns,
        }


@dataclass(frozen=True)
class Tuning:
    """Forms of kernels.

    `lanes` are those of the largest subgroup, None to do without subgroups. GEMM with a
    `gemm_tile` needs none.
    """

    lanes: int | None = None
    gemm_tile: GemmTile | None = None


PLAIN = Tuning()
"""What runs on every adapter: no subgroups."""

_GEMM_TILES = {"nvidia": GemmTile()}
"""By the vendor's name in `GPUAdapterInfo`."""


def tuning_for(info: AdapterInfo, limits: Limits) -> Tuning:
    """Return the forms for an adapter with these limits."""
    return Tuning(info.subgroup_size_max, _GEMM_TILES.get(info.vendor))
