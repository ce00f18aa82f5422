"""Decode's attention with the keys shared out among workgroups (split-KV), as one part or more.

Two kernels do what `attention_decode` does with one workgroup a KV head: the first attends to a
part of the keys in each workgroup, the second joins the parts (Flash-Decoding, Dao et al. 2023).
While all keys are in one part, a form of the first does without the second, to the same bits; few
parts may be joined by the product that reads them (`GemvInput`).

Shapes beside those of `attention.py`, for the heads of the cache at hand: split_parts f32 (heads,
splits, head_dim + 4), a part's sums, then its maximum, its denominator and two zeros; a part
without keys has a denominator of 0, and no sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.attention import (
    APPEND_ACCESS,
    DECODE_ACCESS,
    LANES,
    MAX_QUERIES,
    attends_by_lanes,
    attention_constants,
    bindings,
    row_snippet,
    snippets,
    tokens_per_layer,
)
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.batch import Batch
from py_engine.kernels.forms import SplitKeys
from py_engine.kernels.tuning import Tuning
from py_engine.kernels.wgsl import SUBGROUP_DIRECTIVES, kernel_spec


@dataclass(frozen=True)
class KeySplit:
    """A split in at most `splits` parts of at least `least_keys` keys, one of up to `alone_keys`.

    `workgroup` threads have a part; their subgroups are of exactly `lanes` (None: without). With
    `queries`, so many of a head's share keys in each subgroup (attention_lanes.wgsl).
    """

    splits: int
    least_keys: int
    alone_keys: int
    workgroup: int
    lanes: int | None
    queries: int = 0

    def in_parts(self, n_parts: int) -> KeySplit:
        """Return a split of few keys, in at most so many parts of `alone_keys`."""
        return replace(self, splits=n_parts, least_keys=self.alone_keys)

    @property
    def constants(self) -> dict[str, int]:
        """What the kernels know of it."""
        form = {"QUERIES": self.queries} if self.queries else {"LANES": self.lanes or 1}
        return {
            "SPLITS": self.splits,
            "LEAST_KEYS": self.least_keys,
            "ALONE_KEYS": self.alone_keys,
            "WORKGROUP": self.workgroup,
            **form,
        }


def key_split(shape: AttentionShape, tuning: Tuning) -> KeySplit | None:
    """Return how to share the keys out, None where `attention_decode` is the form to use.

    There is one part where a query never sees more than `alone_keys`. On adapters whose queries
    share keys, heads that do not fit that are not shared out.
    """
    wanted = tuning.split_keys
    if wanted is None:
        return None
    if tuning.attention_by_lanes:
        return _split_by_lanes(shape, wanted) if attends_by_lanes(shape, tuning) else None
    workgroup = wanted.workgroup
    lanes = tuning.lanes if wanted.by_subgroups else None
    # A thread has a column of a head at least, and a subgroup is whole.
    least = max(shape.head_dim // 4, lanes or 1)
    while _workgroup_bytes(shape, workgroup, lanes) > tuning.workgroup_bytes:
        workgroup //= 2
        if workgroup < least:
            return None
    return KeySplit(
        _most_splits(shape, wanted), wanted.least_keys, wanted.alone_keys, workgroup, lanes
    )


def _split_by_lanes(shape: AttentionShape, wanted: SplitKeys) -> KeySplit:
    """Return a split whose workgroups have as few subgroups as a head's queries need.

    Adapters on the CPU run subgroups of a workgroup in turn, those without queries as well.
    """
    n_rep = shape.n_heads // shape.n_kv_heads
    subgroups = -(-n_rep // MAX_QUERIES)
    return KeySplit(
        _most_splits(shape, wanted),
        wanted.least_keys,
        wanted.alone_keys,
        LANES * subgroups,
        LANES,
        -(-n_rep // subgroups),
    )


def _most_splits(shape: AttentionShape, wanted: SplitKeys) -> int:
    if most_keys(shape) <= wanted.alone_keys:
        return 1
    return max(1, wanted.workgroups // shape.heads_in_cache)


def most_keys(shape: AttentionShape) -> int:
    """Return how many keys a query sees at the most."""
    return shape.context if shape.window is None else min(shape.context, shape.window.size)


def _workgroup_bytes(shape: AttentionShape, workgroup: int, lanes: int | None) -> int:
    n_rep = shape.n_heads // shape.n_kv_heads
    sinks_turn = shape.window is not None and shape.window.sinks > 0 and shape.rotated > 0
    queries = (2 if sinks_turn else 1) * n_rep * shape.head_dim
    full_norm = shape.qk_norm is not None and shape.qk_norm.kind == "full_rms"
    per_thread = n_rep + 4 + (2 if full_norm else 0)
    return 4 * (queries + workgroup * per_thread + n_rep * workgroup // (lanes or 1))


def attention_split(
    label: str, shape: AttentionShape, split: KeySplit, batch: Batch | None = None
) -> KernelSpec:
    """Build the attention of one token to a part of the keys; norms, RoPE and append included.

    Bindings: those of `attention_decode`, with split_parts for the output.
    """
    parts = Binding("split_parts", "read_write", _parts_type(shape, split, batch))
    return kernel_spec(
        "attention_split",
        label,
        snippets=(
            *_shared(shape, split, batch)[:-1],
            *_to_a_part(split),
            "keep_parts",
        ),
        bindings=(*bindings(shape, 1, APPEND_ACCESS, batch), parts),
        constants=attention_constants(shape, batch) | split.constants,
        groups_x=shape.heads_in_cache,
        groups_y=split.splits,
        tokens_per_group=tokens_per_layer(batch),
        token_axis=2,
        directives=_directives(split),
    )


def attention_alone(
    label: str, shape: AttentionShape, split: KeySplit, batch: Batch | None = None
) -> KernelSpec:
    """Build the attention of one token that sees at most `alone_keys`, or of a split in one part.

    Bindings: those of `attention_decode`.
    """
    return kernel_spec(
        "attention_alone",
        label,
        snippets=(
            *_shared(shape, split, batch),
            *_to_a_part(split),
            "joined_head",
            "keep_heads",
        ),
        bindings=bindings(shape, 1, DECODE_ACCESS, batch),
        constants=attention_constants(shape, batch) | split.constants,
        groups_x=shape.heads_in_cache,
        tokens_per_group=tokens_per_layer(batch),
        token_axis=2,
        directives=_directives(split),
    )


def _shared(shape: AttentionShape, split: KeySplit, batch: Batch | None) -> tuple[str, ...]:
    return snippets(shape, cooperative=True, batch=batch, by_lanes=split.queries > 0)


def _to_a_part(split: KeySplit) -> tuple[str, ...]:
    """Return the WGSL of attention to a part."""
    if split.queries:
        return "keys_per_split", "part", "attention_lanes", "attention_split_lanes"
    variant = "workgroup" if split.lanes is None else "subgroup"
    return "keys_per_split", "part", "attention_split", f"attention_split_{variant}"


def _directives(split: KeySplit) -> tuple[str, ...]:
    return () if split.lanes is None else SUBGROUP_DIRECTIVES


def attention_combine(
    label: str, shape: AttentionShape, split: KeySplit, batch: Batch | None = None
) -> KernelSpec:
    """Build the second half: join the parts.

    Bindings: qkv where it has gates, `state`, split_parts, output.
    """
    n_heads = shape.heads_in_cache * (shape.n_heads // shape.n_kv_heads)
    qkv = bindings(shape, 1, {"qkv": "read"}, batch)[:1] if shape.gated else ()
    state, output, *rows = bindings(shape, 1, {"state": "read", "output": "read_write"}, batch)
    return kernel_spec(
        "attention_combine",
        label,
        snippets=(
            row_snippet(batch),
            "attention_heads",
            "cache_whole" if shape.window is None else "cache_ring",
            "output_gated" if shape.gated else "output_plain",
            "keys_per_split",
            "joined_head",
            "attention_combine",
        ),
        bindings=(
            *qkv,
            state,
            Binding("split_parts", "read", _parts_type(shape, split, batch)),
            output,
            *rows,
        ),
        constants={
            **attention_constants(shape, batch),
            **split.constants,
            # One thread for four elements adds parts up as a product that joins them does.
            **({"WORKGROUP": shape.head_dim // 4} if split.queries else {}),
        },
        groups_x=n_heads,
        tokens_per_group=tokens_per_layer(batch),
        token_axis=2,
    )


def split_bytes(shape: AttentionShape, split: KeySplit) -> int:
    """Return the bytes of a token in the buffer between the two kernels, `split_parts`."""
    n_heads = shape.heads_in_cache * (shape.n_heads // shape.n_kv_heads)
    return 4 * n_heads * split.splits * (shape.head_dim + 4)


def _parts_type(shape: AttentionShape, split: KeySplit, batch: Batch | None) -> str:
    rows = 1 if batch is None else batch.size
    return f"array<vec4f, {rows * split_bytes(shape, split) // 16}>"
