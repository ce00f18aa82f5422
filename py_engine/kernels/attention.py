"""Attention with RoPE and a KV cache of one sequence.

Shapes: qkv f32 (tokens, qkv_heads, head_dim), queries first (each before its gate, if any), then
keys, then values; k_cache and v_cache f16 (slots, kv_heads, head_dim), or of codes int8
(slots, kv_heads, head_dim + 4) whose last four bytes are the head's f32 scale; those that grow are
of as many slots as their buffers have room for, without a new pipeline; output f32 (tokens, heads,
head_dim).
RoPE rotates the pairs (i, i + rotary_dim / 2), as Hugging Face's Llama does. Softmax in f32,
online.

Keys are rotated at their position in the sequence. With a sliding window the distances within it
are the same as if positions were counted from its start; only the sinks, which stay behind, are
seen through queries that are rotated at their place in the window (StreamingLLM, Xiao et al. 2023).

Norms of q and k (Henry et al. 2020) come before RoPE; see `QkNorm` for their weights, f32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.attention_shape import WORKGROUP, AttentionShape
from py_engine.kernels.batch import ROWS, STATES, Batch, batch_stride
from py_engine.kernels.tuning import PLAIN, Tuning
from py_engine.kernels.vision import STATE_IMAGES, state_words
from py_engine.kernels.wgsl import STATE, STATE_WORDS, SUBGROUP_DIRECTIVES, kernel_spec

_Access = Literal["read", "read_write"]
_NORMS = ("q_norm", "k_norm")
_TILE_KEYS = 16
_TILE_QUERIES = 2

LANES = 4
"""Lanes of a subgroup whose queries share keys (`attends_by_lanes`)."""

MAX_QUERIES = 8
"""The most queries of a subgroup that share keys."""

APPEND_ACCESS: Mapping[str, _Access] = {
    "qkv": "read",
    "q_norm": "read",
    "k_norm": "read",
    "rope": "read",
    "state": "read",
    "k_cache": "read_write",
    "v_cache": "read_write",
}
"""What a kernel that appends to the cache does with its buffers, in the order of its bindings."""

DECODE_ACCESS: Mapping[str, _Access] = {**APPEND_ACCESS, "output": "read_write"}
"""The same for one that attends as well."""

_PREFILL_ACCESS: Mapping[str, _Access] = {**DECODE_ACCESS, "k_cache": "read", "v_cache": "read"}
"""The same for one that attends to what was appended before."""


def row_snippet(batch: Batch | None) -> str:
    """Return the WGSL that tells kernels where a token's sequence is."""
    return "row_alone" if batch is None else "row_of_batch"


def snippets(
    shape: AttentionShape,
    *,
    cooperative: bool,
    batch: Batch | None = None,
    by_lanes: bool = False,
) -> tuple[str, ...]:
    """Return the WGSL that the kernels share.

    `cooperative`: all threads of a workgroup work on one token, and so may add up its row together.
    `by_lanes`: it `attends_by_lanes`.
    """
    if shape.rotated == 0:
        rope = "rope_none"
    else:
        rope = "rope_odd" if shape.rotated % 8 else "rope"
    norm = shape.qk_norm.kind if shape.qk_norm else "none"
    if norm == "full_rms":
        sums = "qk_squares_workgroup" if cooperative else "qk_squares_thread"
    else:
        sums = "qk_norm_alone"
    cache = "halfs" if shape.cache_dtype == "float16" else "codes"
    return (
        "halfs_masked" if by_lanes else "halfs_builtin",
        "halfs",
        row_snippet(batch),
        "attention_heads",
        f"cache_{cache}",
        *((f"keep_{cache}",) if cooperative else ()),
        f"qk_norm_{norm}",
        sums,
        rope,
        "cache_whole" if shape.window is None else "cache_ring",
        *(("append",) if cooperative else ()),
        "score_plain" if shape.soft_cap is None else "score_capped",
        "output_gated" if shape.gated else "output_plain",
    )


def attention_constants(
    shape: AttentionShape, batch: Batch | None = None
) -> dict[str, int | float | bool | str]:
    """Return what the kernels know of a layer's attention and the rows that they take."""
    qkv, output = _row_strides(shape, batch)
    coarse, fine_bits = shape.rope_rows
    window, norm, scaling = shape.window, shape.qk_norm, shape.query_scaling
    constants: dict[str, int | float | bool | str] = {
        "N_HEADS": shape.n_heads,
        "N_KV_HEADS": shape.n_kv_heads,
        "CACHE_HEADS": shape.heads_in_cache,
        "FIRST_CACHE_HEAD": shape.first_cache_head,
        "HEAD_DIM": shape.head_dim,
        "HEADS_PER_QUERY": 2 if shape.gated else 1,
        "QKV_STRIDE": qkv,
        "OUTPUT_STRIDE": output,
        "APPENDS": batch is None or not batch.is_draft,
        "BATCH": 0 if batch is None else batch.size,
        "ROTARY_DIM": shape.rotated,
        "SINKS": 0 if window is None else window.sinks,
        "WORKGROUP": WORKGROUP,
        "SCALE": float(shape.head_dim**-0.5 if shape.scale is None else shape.scale),
        "QUERY_SCALING_BETA": 0.0 if scaling is None else float(scaling.beta),
        "QUERY_SCALING_CONTEXT": 1 if scaling is None else scaling.original_context,
        "ROPE_FINE_BITS": fine_bits,
        "ROPE_COARSE": coarse,
        "cache_dtype": shape.cache_dtype,
        **STATE_WORDS,
    }
    if window is not None:
        constants |= {"WINDOW": window.size, "RING": window.ring}
    if norm is not None:
        constants |= {"QK_NORM": norm.kind, "EPSILON": float(norm.eps)}
    if shape.soft_cap is not None:
        constants["SOFT_CAP"] = float(shape.soft_cap)
    return constants


def _row_strides(shape: AttentionShape, batch: Batch | None) -> tuple[int, int]:
    """Return the floats from one token's projection to the next, and from output to output."""
    strides = shape.qkv_heads * shape.head_dim, shape.n_heads * shape.head_dim
    return strides if batch is None else (batch_stride(strides[0]), batch_stride(strides[1]))


def bindings(
    shape: AttentionShape,
    max_tokens: int,
    access: Mapping[str, _Access],
    batch: Batch | None = None,
) -> tuple[Binding, ...]:
    """Return the buffers that `access` names, in its order: those of norms and RoPE if any.

    Those of a batch are its sequences' together, whose number kernels do not know, and `rows`.
    """
    qkv, output = _row_strides(shape, batch)
    n_rows = max_tokens if batch is None else batch.size
    coarse, fine_bits = shape.rope_rows
    rope_size = (coarse + (1 << fine_bits)) * shape.rotated
    norm = shape.qk_norm
    shared = norm is None or norm.heads_share_weights
    fours = shape.head_dim // 4
    element, size = ("vec2u", 8) if shape.cache_dtype == "float16" else ("u32", 4)
    has_size = batch is None and not shape.grows
    cache = f"array<{element}, {shape.cache_bytes // size}>" if has_size else f"array<{element}>"
    types = {
        "qkv": f"array<vec4f, {n_rows * qkv // 4}>",
        "q_norm": f"array<vec4f, {(1 if shared else shape.n_heads) * fours}>",
        "k_norm": f"array<vec4f, {(1 if shared else shape.n_kv_heads) * fours}>",
        "rope": f"array<f32, {rope_size}>"
        if shape.rotated % 8
        else f"array<vec4f, {rope_size // 4}>",
        "state": _state_type(shape, max_tokens, access, batch),
        "k_cache": cache,
        "v_cache": cache,
        "output": f"array<vec4f, {n_rows * output // 4}>",
    }
    absent = {*(_NORMS if norm is None else ()), *(() if shape.rotated else ("rope",))}
    found = (
        Binding(name, kind, types[name]) for name, kind in access.items() if name not in absent
    )
    return (*found,) if batch is None else (*found, ROWS)


def _state_type(
    shape: AttentionShape, max_tokens: int, access: Mapping[str, _Access], batch: Batch | None
) -> str:
    if batch is not None:
        return STATES.type
    reads_images = shape.image_tokens and "output" in access
    return f"array<u32, {state_words(max_tokens)}>" if reads_images else STATE.type


def attends_by_lanes(shape: AttentionShape, tuning: Tuning) -> bool:
    """Return whether a tuning's attention has queries that share keys (`attention_lanes.wgsl`).

    Each of four lanes has whole eights of a head, four at most.
    """
    fits = shape.head_dim % (8 * LANES) == 0 and shape.head_dim <= 32 * LANES
    return tuning.attention_by_lanes and tuning.lanes == LANES and fits


def attention_decode(
    label: str, shape: AttentionShape, workgroup: int = WORKGROUP, batch: Batch | None = None
) -> KernelSpec:
    """Build the attention of one token: norms, RoPE, append at `state`'s position, attend.

    Of a batch it is each row's, and `n_tokens` of the dispatch is how many there are; a draft's
    `rope_append` comes before.
    """
    return kernel_spec(
        "attention_decode",
        label,
        snippets=(*snippets(shape, cooperative=True, batch=batch), "attention_decode"),
        bindings=bindings(shape, 1, DECODE_ACCESS, batch),
        constants=attention_constants(shape, batch) | {"WORKGROUP": workgroup},
        groups_x=shape.heads_in_cache,
        tokens_per_group=tokens_per_layer(batch),
        token_axis=2,
    )


def tokens_per_layer(batch: Batch | None) -> int:
    """Return `tokens_per_group` of a kernel whose grid has a layer for each row of a batch."""
    return 0 if batch is None else 1


def _tile_queries(shape: AttentionShape, tuning: Tuning) -> int:
    """Return the queries that four lanes share in prefill's tile, 0 where it has none.

    Each of them has whole fours of a head.
    """
    tile = tuning.prefill_attention(shape.n_heads, shape.head_dim)
    has_quads = tuning.lanes is not None and tuning.lanes >= LANES
    needed = 2 * _TILE_KEYS * 4 * shape.head_dim
    fits = shape.head_dim % (4 * LANES) == 0 and needed <= tuning.workgroup_bytes
    if tile is None or not has_quads or not fits:
        return 0
    return min(max(1, tile.floats * LANES // (2 * shape.head_dim)), _TILE_QUERIES)


def rope_append(
    label: str,
    shape: AttentionShape,
    max_tokens: int,
    batch: Batch | None = None,
    workgroup: int = WORKGROUP,
) -> KernelSpec:
    """Build the first half of prefill attention: write normed, rotated k and v to the cache.

    Of a draft, in place of a chunk: its rows' at their `state`s' positions. The `workgroup` of the
    kernel that attends adds up squares as that does, to the bits that decode leaves.
    """
    is_coded = shape.cache_dtype != "float16"
    units = 2 * shape.heads_in_cache * (shape.head_dim // 8)
    return kernel_spec(
        "rope_append",
        label,
        snippets=(
            *snippets(shape, cooperative=True, batch=batch),
            "rope_append_codes" if is_coded else "rope_append",
        ),
        bindings=bindings(shape, max_tokens, APPEND_ACCESS, batch),
        constants=attention_constants(shape, batch) | {"WORKGROUP": workgroup},
        groups_x=shape.heads_in_cache if is_coded else -(-units // workgroup),
        tokens_per_group=1,
    )


def attention_prefill(
    label: str, shape: AttentionShape, max_tokens: int, tuning: Tuning = PLAIN
) -> KernelSpec:
    """Build the second half: causal attention of the chunk over what the cache holds.

    With `shape.image_tokens`, `state` has a word for each token behind its own ones, and tokens of
    an image see all of it, within their window.
    """
    workgroup, tokens = WORKGROUP, WORKGROUP
    source: tuple[str, ...] = ("attention_prefill",)
    directives: tuple[str, ...] = ()
    constants: Mapping[str, int] = {}
    by_lanes = attends_by_lanes(shape, tuning)
    if by_lanes:
        workgroup = tuning.attention_threads
        tokens = workgroup // LANES * MAX_QUERIES
        attending = ("attention_lanes", "attention_prefill_lanes")
        source, directives = ("part", "joined_head", "keep_heads", *attending), SUBGROUP_DIRECTIVES
        constants = {"QUERIES": MAX_QUERIES}
    elif queries := _tile_queries(shape, tuning):
        tokens = workgroup // LANES * queries
        source, directives = ("attention_tile",), SUBGROUP_DIRECTIVES
        constants = {"QUERIES": queries, "TILE_KEYS": _TILE_KEYS}
    ahead = "ahead_images" if shape.image_tokens else "ahead_none"
    return kernel_spec(
        "attention_prefill",
        label,
        snippets=(*snippets(shape, cooperative=False, by_lanes=by_lanes), ahead, *source),
        bindings=bindings(shape, max_tokens, _PREFILL_ACCESS),
        constants={
            **attention_constants(shape),
            "WORKGROUP": workgroup,
            "IMAGE_TOKENS": shape.image_tokens,
            "STATE_IMAGES": STATE_IMAGES,
            **constants,
        },
        groups_x=shape.heads_in_cache * (shape.n_heads // shape.n_kv_heads),
        tokens_per_group=tokens,
        directives=directives,
    )
