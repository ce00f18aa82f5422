"""Which form of a kernel an adapter gets.

What kernels compute is the same in every form. A form that pays was measured on an adapter; all
others have those that run everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from py_engine.gpu.types import AdapterInfo, Limits


@dataclass(frozen=True)
class SplitKeys:
    """Decode's attention with its keys shared out; see `kernels/attention_split.py`.

    There are about `workgroups` workgroups of `workgroup` threads over all KV heads, each with at
    least `least_keys` keys.
    """

    workgroup: int
    workgroups: int
    least_keys: int


@dataclass(frozen=True)
class GemvForm:
    """A product of one token in which a team of `split` subgroups has `rows` rows, 4 or 2.

    Lanes take `unroll` blocks at a time. With `staged` a workgroup brings x into its memory once;
    then `split` is 1.
    """

    rows: int
    workgroup: int
    split: int = 1
    unroll: int = 1
    staged: bool = False


@dataclass(frozen=True)
class GemvForms:
    """Which form a matrix gets: `deep` one of at least `deep_ratio` columns a row, `wide` another
    of at least `wide_rows` rows, `narrow` the others."""

    wide: GemvForm
    narrow: GemvForm
    deep: GemvForm
    wide_rows: int
    deep_ratio: int

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

    `lanes` are those of the largest subgroup, None to do without subgroups; the forms that only
    some adapters get rely on all subgroups having as many. `workgroup_bytes` of memory are there
    for a workgroup. `split_keys` is None where one workgroup attends to all keys of a KV head;
    `gemv` is None where all products of one token have the form that runs everywhere. `gemm_tiles`
    are for products of a chunk: a matrix gets the first whose number of rows it has at least. The
    draw takes at most `sample_threads`.
    """

    lanes: int | None = None
    workgroup_bytes: int = Limits().max_compute_workgroup_storage_size
    split_keys: SplitKeys | None = None
    gemv: GemvForms | None = None
    gemm_tiles: tuple[tuple[int, GemmTile], ...] = ()
    sample_threads: int = 256

    def gemm_tile(self, rows: int) -> GemmTile | None:
        """Return the tile for a matrix of so many rows; None for the form that runs everywhere."""
        return next((tile for at_least, tile in self.gemm_tiles if rows >= at_least), None)


PLAIN = Tuning()
"""What runs on every adapter: no subgroups."""

_NVIDIA = Tuning(
    # An H200 with 8 KV heads: 16 parts are good at all contexts. Against one part a KV head, 13.7
    # us for 227 at 1,024 tokens and 23 for 1,658 at 4,096 (Llama 3.2 1B).
    split_keys=SplitKeys(workgroup=256, workgroups=128, least_keys=64),
    # An H200 with q4f16_1, in us, each for the plain form's: 13.8 for 24.7 (16,384 x 2,048), 148
    # for 282 (128,256 x 4,096); 6.5 for 9.5 (3,072 x 2,048); 9.5 for 20 (2,048 x 8,192).
    gemv=GemvForms(
        wide=GemvForm(4, 256, unroll=2, staged=True),
        narrow=GemvForm(2, 256, unroll=2, staged=True),
        deep=GemvForm(4, 128, split=4),
        wide_rows=4096,
        deep_ratio=3,
    ),
    # TFLOP/s at 512 tokens, for 5.2 to 7.2 by subgroups: 27 (28,672 x 4,096; the smaller tile 24)
    # and 24 (3,072 x 2,048; the larger tile 19).
    gemm_tiles=((8192, GemmTile(128, 64, 16)), (0, GemmTile(64, 64, 32))),
    # With 256 threads a draw with top_p took 1.6 ms of 128,256 logits, most of it waiting.
    sample_threads=1024,
)

_MEASURED = {("nvidia", 32): _NVIDIA}
"""By vendor and lanes: the forms that were measured there."""


_MEASURED_THREADS = 1024
_MEASURED_BYTES = 32768
"""What these forms need of the limits: a draw's sums take 25 KiB."""


def tuning_for(info: AdapterInfo, limits: Limits) -> Tuning:
    """Return the forms for an adapter with these limits."""
    lanes = info.subgroup_size_max
    measured = PLAIN if lanes is None else _MEASURED.get((info.vendor, lanes), PLAIN)
    threads = min(limits.max_compute_invocations_per_workgroup, limits.max_compute_workgroup_size_x)
    if threads < _MEASURED_THREADS or limits.max_compute_workgroup_storage_size < _MEASURED_BYTES:
        measured = PLAIN
    return replace(measured, lanes=lanes, workgroup_bytes=limits.max_compute_workgroup_storage_size)
