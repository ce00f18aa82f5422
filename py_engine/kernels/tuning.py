"""Which form of a kernel an adapter gets.

What kernels compute is the same in every form, but for those that round x to f16 or to 8 bits,
which `activation_dtype` must allow. Forms of the table were measured on an adapter. On other GPUs
products are measured when a model is first loaded (`models/form_choice.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import get_args

from py_engine.chat_config import ActivationDtype
from py_engine.gpu.types import AdapterInfo, Limits
from py_engine.kernels.forms import (
    PLAIN_INT8,
    AttentionTile,
    Forms,
    GemmTile,
    GemvForm,
    GemvForms,
    Product,
    ProductKind,
    SplitKeys,
)


@dataclass(frozen=True)
class Tuning:
    """Forms of kernels.

    `lanes` are those of the largest subgroup, None to do without subgroups; the forms that only
    some adapters get rely on all subgroups having as many. `workgroup_bytes` of memory are there
    for a workgroup. `split_keys` is None where one workgroup attends to all keys of a KV head;
    `gemv` is None where all products of one token have the form that runs everywhere. `gemm_tiles`
    are for products of a chunk: a matrix gets the first whose number of rows it has at least;
    without one a subgroup has 4 rows and 4 tokens, or `gemm_quads` times 4 rows and 8 tokens. What
    was `measured` goes before all. The draw takes at most `sample_threads`, with as many as
    `lanes` by one subgroup, and where there are `sample_slices`, at most as many, so many
    workgroups first find out what it has to look at (0: it looks at all). With `attention_by_lanes`
    queries share keys where heads fit (attention_lanes.wgsl): in decode as `split_keys` has it,
    which is there then, and in a chunk in workgroups of `attention_threads`, which decode's
    attention has without `split_keys`, too. Other attention of a chunk has an `attention_tile` or a
    thread for each query. With `masks_codes` subgroups unpack 4-bit codes without shifts
    (weight_q4_masked.wgsl). Where `activation_dtype` is "int8", some forms round x to 8 bits; with
    "float16" only forms that were `measured` do.
    """

    lanes: int | None = None
    workgroup_bytes: int = Limits().max_compute_workgroup_storage_size
    split_keys: SplitKeys | None = None
    gemv: GemvForms | None = None
    gemm_tiles: tuple[tuple[int, GemmTile], ...] = ()
    gemm_quads: int = 1
    sample_threads: int = 256
    sample_slices: int = 0
    attention_threads: int = 64
    attention_by_lanes: bool = False
    attention_tile: AttentionTile | None = None
    masks_codes: bool = False
    activation_dtype: ActivationDtype = "float32"
    measured: Forms = field(default_factory=dict, hash=False)

    def gemv_form(self, rows: int, columns: int) -> GemvForm | None:
        """Return the form for a matrix; None for the one that runs everywhere."""
        product: Product = ("gemv", rows, columns)
        if product in self.measured:
            form = self.measured[product]
            return form if isinstance(form, GemvForm) else None
        return None if self.gemv is None else self.gemv.choose(rows, columns)

    def prefill_attention(self, n_heads: int, head_dim: int) -> AttentionTile | None:
        """Return the tile of a chunk's attention; None for a thread for each query."""
        product: Product = ("attention", n_heads, head_dim)
        form = self.measured.get(product, self.attention_tile)
        return form if isinstance(form, AttentionTile) else None

    def gemm_tile(self, rows: int, columns: int) -> GemmTile | None:
        """Return the tile for a matrix; None for the form that runs everywhere."""
        product: Product = ("gemm", rows, columns)
        if product in self.measured:
            tile = self.measured[product]
            return tile if isinstance(tile, GemmTile) else None
        return next((tile for at_least, tile in self.gemm_tiles if rows >= at_least), None)


PLAIN = Tuning()
"""What runs on every adapter: no subgroups."""

_NVIDIA = Tuning(
    # An H200 with 8 KV heads: 16 parts are good at all contexts. Against one part a KV head, 13.7
    # us for 227 at 1,024 tokens and 23 for 1,658 at 4,096 (Llama 3.2 1B). One part takes 7.5 us for
    # 9.7 at 128 tokens, and 32 for 13.7 at 1,024: it has as many keys as threads, a round of them.
    # Products that join parts read them out of the GPU's cache, at 4e12 bytes a second or more by
    # estimate, for a dispatch of 8 us; that was not measured.
    split_keys=SplitKeys(
        workgroup=256, workgroups=128, least_keys=64, alone_keys=256, joined_bytes=18_000_000
    ),
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
    # With 256 threads a draw with top_p took 1.6 ms of 128,256 logits, most of it waiting, with
    # 1,024 604 us: it looked at all of them 18 times.
    sample_threads=1024,
    sample_slices=64,
    # A thread for each query, with all of its columns in registers, took 0.49 ms for 256 tokens of
    # Llama 3.1 8B, 1.1 TFLOP/s; a thread has up to 255 registers.
    attention_tile=AttentionTile(128),
)

_SWIFTSHADER = Tuning(
    # Chromium's adapter on the CPU loads for each lane on its own, so that rows that share x pay:
    # 22.8 ms for 42.4 of all products of a token, 45 for 76 of eight of a chunk of 100 tokens
    # (embedded model, rounds in turn). It shifts for each lane, too: 2.0 ms for 4.6 with masks
    # (4,096 x 512), and less to compile.
    # CPU time of a token and of four together, for that with 32 rows: 31 ms for 35 and 52 for 94
    # (30,000 x 896), 5.0 for 6.5 and 9.5 for 13.5 (896 x 4,864).
    gemv=GemvForms(
        wide=GemvForm(128, 16),
        narrow=GemvForm(64, 16),
        deep=GemvForm(64, 16),
        wide_rows=4096,
        deep_ratio=1 << 30,
    ),
    # CPU time of a chunk of 64 tokens, for that with 32 rows and four tokens: 265 ms for 510 (9,728
    # x 896) and 90 for 190 (896 x 4,864).
    gemm_quads=32,
    masks_codes=True,
    # It pays for each thread at a barrier, when it compiles as well: one subgroup draws in 0.24 ms
    # for 0.35 with 64 threads (greedy, 49,152 tokens) and compiles in 59 ms for 164. Decode's
    # attention of 8 heads of 80 over 2, after 300 tokens: 1.00 ms for 1.17.
    sample_threads=4,
    attention_threads=16,
    attention_by_lanes=True,
    # A workgroup keeps one core busy, and three KV heads leave one of two idle: two parts of 2,000
    # keys take 1.02 ms for 1.17 in one (SmolLM2 135M's heads). The product behind joins them.
    split_keys=SplitKeys(
        workgroup=4, workgroups=64, least_keys=1024, alone_keys=1024, joined_bytes=1 << 30
    ),
)

_OTHER_GPU = Tuning(
    # One workgroup a KV head would leave most of a GPU idle. Without subgroups, whose sizes may
    # vary; fewer and smaller parts than on an H200, for there are fewer cores.
    split_keys=SplitKeys(
        workgroup=128,
        workgroups=64,
        least_keys=64,
        alone_keys=128,
        joined_bytes=4_000_000,
        by_subgroups=False,
    ),
    sample_slices=64,
)

_TABLE = {("nvidia", 32): _NVIDIA, ("google", 4): _SWIFTSHADER}
"""By vendor and lanes: the forms that were measured there."""

_INT8_FORMS = {
    # An H200 with q4f16_1, in us, for the best in float: 24.8 for 37.9 (28,672 x 4,096), 89.7 for
    # 143 (128,256 x 4,096); 10.5 for 13.4 (6,144 x 4,096); 16.2 for 22.3 (4,096 x 14,336).
    ("nvidia", 32): GemvForms(
        wide=GemvForm(8, 256, staged=True, int8=True),
        narrow=GemvForm(2, 256, staged=True, int8=True),
        deep=GemvForm(4, 256, split=2, staged=True, int8=True),
        wide_rows=8192,
        deep_ratio=3,
    ),
    # A step of SmolLM2-135M's shapes takes 1.6 times as long as in f32: integer dot products go
    # byte by byte there.
    ("google", 4): GemvForms(
        wide=GemvForm(128, 16, int8=True),
        narrow=GemvForm(64, 16, int8=True),
        deep=GemvForm(64, 16, int8=True),
        wide_rows=4096,
        deep_ratio=1 << 30,
    ),
}
"""Products of one token with x in 8 bits, for the adapters of the table."""

_INT8_TILES = ((0, GemmTile(64, 64, 64, "int8")),)

_BYTES_PER_SAMPLE_THREAD = 26
"""What the sums of a draw take of a workgroup's memory."""


def _in_table(info: AdapterInfo, limits: Limits) -> Tuning | None:
    if info.subgroup_size_max is None:
        return None
    found = _TABLE.get((info.vendor, info.subgroup_size_max))
    threads = min(limits.max_compute_invocations_per_workgroup, limits.max_compute_workgroup_size_x)
    if found is None or threads < found.sample_threads:
        return None
    needed = found.sample_threads * _BYTES_PER_SAMPLE_THREAD
    return found if needed <= limits.max_compute_workgroup_storage_size else None


def kinds_to_measure(
    info: AdapterInfo, limits: Limits, activation_dtype: ActivationDtype
) -> frozenset[ProductKind]:
    """Return the products whose forms must be measured on an adapter.

    Those are all on a GPU that is not in the table. What the table has for chunks was measured in
    f32, without their attention; adapters on the CPU stay as they are.
    """
    if info.is_fallback:
        return frozenset()
    if _in_table(info, limits) is None:
        return frozenset(get_args(ProductKind))
    return frozenset(() if activation_dtype == "float32" else ("gemm", "attention"))


def tuning_for(
    info: AdapterInfo,
    limits: Limits,
    measured: Forms | None = None,
    activation_dtype: ActivationDtype = "float32",
) -> Tuning:
    """Return the forms for an adapter with these limits, on which some were measured.

    With an `activation_dtype` of "int8" x is rounded in all products of 4-bit codes, but those of a
    chunk on adapters of the table, where that was not measured, or on the CPU, and those that were
    `measured` to be faster in f32.
    """
    forms = _in_table(info, limits) or (PLAIN if info.is_fallback else _OTHER_GPU)
    if activation_dtype == "int8":
        forms = _in_int8(forms, info, limits)
    return replace(
        forms,
        activation_dtype=activation_dtype,
        lanes=info.subgroup_size_max,
        workgroup_bytes=limits.max_compute_workgroup_storage_size,
        measured=measured or {},
    )


def _in_int8(forms: Tuning, info: AdapterInfo, limits: Limits) -> Tuning:
    if _in_table(info, limits) is not None:
        return replace(forms, gemv=_INT8_FORMS[info.vendor, info.subgroup_size_max or 0])
    tiles = () if info.is_fallback else _INT8_TILES
    return replace(forms, gemv=GemvForms.only(PLAIN_INT8), gemm_tiles=tiles)
