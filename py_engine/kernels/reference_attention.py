"""What the attention kernels compute, in NumPy; see `reference.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from py_engine.kernels.reference_batch import by_rows, span

if TYPE_CHECKING:
    from py_engine.kernels.reference import Array, Buffers, Constants


def _places(constants: Constants, row: int, words: Sequence[int]) -> Mapping[str, slice]:
    """Return what a row has of a batch's buffers."""
    state, first_slot, *_ = words
    size = constants["HEAD_DIM"]
    queries = constants["HEADS_PER_QUERY"] * constants["N_HEADS"]
    parts = constants["CACHE_HEADS"] * constants["N_HEADS"] // constants["N_KV_HEADS"]
    parts *= constants.get("SPLITS", 0) * (size + 4)
    head_bytes = size + 4 if constants["cache_dtype"] == "int8" else 2 * size
    cache = slice(first_slot * constants["CACHE_HEADS"] * head_bytes // 4, None)
    return {
        "qkv": span(row * constants["QKV_STRIDE"], (queries + 2 * constants["N_KV_HEADS"]) * size),
        "output": span(row * constants["OUTPUT_STRIDE"], constants["N_HEADS"] * size),
        "split_parts": span(row * parts, parts),
        "state": span(state, 4),
        "k_cache": cache,
        "v_cache": cache,
    }


_by_rows = by_rows(_places)

_NO_KEYS = (-3.4e38, 0, 0, 0)
"""Maximum and denominator of a part without keys, and two zeros."""


def _rotate(constants: Constants, buffers: Buffers, x: Array, positions: Array) -> Array:
    """RoPE of x (tokens, heads, head_dim) from the two tables, by angle addition."""
    rotated, bits = constants["ROTARY_DIM"], constants["ROPE_FINE_BITS"]
    if not rotated:
        return x
    half = rotated // 2
    table = buffers["rope"].reshape(-1, 2, half).astype(np.float64)
    coarse = table[positions >> bits]
    fine = table[constants["ROPE_COARSE"] + (positions & ((1 << bits) - 1))]
    cosine = (coarse[:, 0] * fine[:, 0] - coarse[:, 1] * fine[:, 1])[:, None]
    sine = (coarse[:, 1] * fine[:, 0] + coarse[:, 0] * fine[:, 1])[:, None]
    low, high, rest = np.split(x, [half, rotated], axis=-1)
    turned = [low * cosine - high * sine, high * cosine + low * sine, rest]
    return np.concatenate(turned, axis=-1)


def _normed(constants: Constants, x: Array, weights: Array) -> Array:
    """Norm of queries or keys x (tokens, heads, head_dim)."""
    kind = constants["QK_NORM"]
    axes = (-2, -1) if kind == "full_rms" else -1
    if kind == "head_layer":
        x = x - x.mean(axis=axes, keepdims=True)
    scaled = x / np.sqrt(np.mean(x * x, axis=axes, keepdims=True) + constants["EPSILON"])
    normed: Array = scaled * weights.reshape(-1, x.shape[-1])
    return normed


def _rows(constants: Constants, qkv: Array, n_tokens: int) -> tuple[Array, Array, Array]:
    """Return queries (each before its gate), k and v of the projection's rows."""
    kv_heads = constants["N_KV_HEADS"]
    queries = constants["HEADS_PER_QUERY"] * constants["N_HEADS"]
    rows = qkv.reshape(-1, queries + 2 * kv_heads, constants["HEAD_DIM"])
    q, k, v = np.split(rows[:n_tokens].astype(np.float64), [queries, queries + kv_heads], axis=1)
    return q, k, v


def _gates(constants: Constants, queries: Array) -> Array:
    """Return what lies behind every query: itself where there are no gates."""
    each = constants["HEADS_PER_QUERY"]
    return queries[:, each - 1 :: each]


def _split_heads(
    constants: Constants, buffers: Buffers, n_tokens: int
) -> tuple[Array, Array, Array, Array]:
    """Return q, k, v and the gates, (tokens, heads, head_dim), q and k normed if they are."""
    queries, k, v = _rows(constants, buffers["qkv"], n_tokens)
    q = queries[:, :: constants["HEADS_PER_QUERY"]]
    if "QK_NORM" in constants:
        q = _normed(constants, q, buffers["q_norm"])
        k = _normed(constants, k, buffers["k_norm"])
    return q, k, v, _gates(constants, queries)


def _rows_of_cache(constants: Constants, words: Array) -> Array:
    """Return a cache by slots and heads, of as many slots as the buffer has room for.

    f16 (slots, heads, head_dim), or int8 (slots, heads, head_dim + 4) with each head's scale.
    """
    heads, size = constants["CACHE_HEADS"], constants["HEAD_DIM"]
    is_coded = constants["cache_dtype"] == "int8"
    elements = words.view(np.int8 if is_coded else np.float16)
    size += 4 if is_coded else 0
    return elements[: len(elements) // (heads * size) * heads * size].reshape(-1, heads, size)


def _cached(constants: Constants, words: Array, slots: Array) -> Array:
    """Return what is in some slots of a cache, f64 (slots, heads, head_dim)."""
    rows, size = _rows_of_cache(constants, words)[slots], constants["HEAD_DIM"]
    if constants["cache_dtype"] != "int8":
        return rows.astype(np.float64)
    scales = np.ascontiguousarray(rows[..., size:]).view(np.float32)
    values: Array = np.maximum(rows[..., :size] / 127, -1) * scales
    return values


def _keep(constants: Constants, words: Array, slots: Array, heads: Array) -> None:
    """Write keys or values (tokens, heads, head_dim) to slots of a cache."""
    rows, size = _rows_of_cache(constants, words), constants["HEAD_DIM"]
    if constants["cache_dtype"] != "int8":
        rows[slots] = heads
        return
    scales = np.abs(heads).max(axis=-1, keepdims=True).astype(np.float32)
    unit = np.divide(heads, scales, out=np.zeros_like(heads), where=scales > 1e-30)
    rows[slots, :, :size] = np.floor(127 * unit + 0.5)
    rows[slots, :, size:] = scales.view(np.int8)


def _slots(constants: Constants, positions: Array) -> Array:
    """Return where positions lie in the cache."""
    if "WINDOW" not in constants:
        return positions
    sinks = constants["SINKS"]
    in_ring = sinks + (positions - sinks) % constants["RING"]
    slots: Array = np.where(positions < sinks, positions, in_ring)
    return slots


def _append(constants: Constants, buffers: Buffers, k: Array, v: Array, at: Array) -> None:
    first, count = constants["FIRST_CACHE_HEAD"], constants["CACHE_HEADS"]
    here = _slots(constants, at)
    k = _rotate(constants, buffers, k, at)
    _keep(constants, buffers["k_cache"], here, k[:, first : first + count])
    _keep(constants, buffers["v_cache"], here, v[:, first : first + count])


def _query_scale(constants: Constants, at: Array) -> Array:
    steps = np.log1p(at // constants["QUERY_SCALING_CONTEXT"])
    scale: Array = constants["SCALE"] * (1 + constants["QUERY_SCALING_BETA"] * steps)
    return scale


def _ahead(constants: Constants, buffers: Buffers, n_tokens: int) -> Array:
    """Return how many tokens behind it each token of a chunk sees: the rest of its image."""
    if not constants["IMAGE_TOKENS"]:
        return np.zeros(n_tokens, np.int64)
    first, size = constants["STATE_IMAGES"], constants["IMAGE_TOKENS"]
    rows = buffers["state"][first : first + n_tokens].astype(np.int64)
    ahead: Array = np.where(rows > 0, size - 1 - (rows - 1) % size, 0)
    return ahead


def _attend(
    constants: Constants,
    buffers: Buffers,
    q: Array,
    gates: Array,
    at: Array,
    ahead: Array | int = 0,
) -> None:
    """Attention of queries (tokens, heads, head_dim) at positions `at`, not rotated yet.

    They see `ahead` more tokens than those up to themselves.
    """
    scores, v = _scores(constants, buffers, q, at, ahead)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    _write_output(constants, buffers, np.einsum("htk,khd->thd", weights, v), gates)


def _cached_queries(constants: Constants) -> slice:
    """Return the query heads of the cache's KV heads."""
    n_rep = constants["N_HEADS"] // constants["N_KV_HEADS"]
    first = constants["FIRST_CACHE_HEAD"] * n_rep
    return slice(first, first + constants["CACHE_HEADS"] * n_rep)


def _write_output(constants: Constants, buffers: Buffers, out: Array, gates: Array) -> None:
    """Write the heads of the cache, (tokens, heads, head_dim), behind their gates."""
    here = _cached_queries(constants)
    if constants["HEADS_PER_QUERY"] == 2:
        out = out / (1 + np.exp(-gates[:, here]))
    rows = buffers["output"].reshape(-1, constants["N_HEADS"], constants["HEAD_DIM"])
    rows[: len(out), here] = out


def _scores(
    constants: Constants, buffers: Buffers, q: Array, at: Array, ahead: Array | int = 0
) -> tuple[Array, Array]:
    """Return scores (heads, tokens, keys) and values (keys, heads, head_dim), keys in order."""
    sinks, n_rep = constants["SINKS"], constants["N_HEADS"] // constants["N_KV_HEADS"]
    hidden = np.maximum(0, at + 1 - constants.get("WINDOW", at[-1] + 1))
    kept = np.arange(at[-1] + 1)
    kept = kept[(kept < sinks) | (kept >= sinks + hidden[0])]
    slots = _slots(constants, kept)
    k = np.repeat(_cached(constants, buffers["k_cache"], slots), n_rep, axis=1)
    v = np.repeat(_cached(constants, buffers["v_cache"], slots), n_rep, axis=1)
    q = q[:, _cached_queries(constants)] * _query_scale(constants, at)[:, None, None]
    scores = np.einsum("thd,khd->htk", _rotate(constants, buffers, q, at), k)
    if sinks:
        from_window = np.einsum("thd,khd->htk", _rotate(constants, buffers, q, at - hidden), k)
        scores = np.where(kept < sinks, from_window, scores)
    if "SOFT_CAP" in constants:
        scores = constants["SOFT_CAP"] * np.tanh(scores / constants["SOFT_CAP"])
    last = (at + ahead)[:, None]
    visible = (kept <= last) & ((kept < sinks) | (kept >= sinks + hidden[:, None]))
    return np.where(visible, scores, -np.inf), v


@_by_rows
def attention_decode(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Norms of heads, RoPE, append to the cache, attend: one token."""
    at = np.array([int(buffers["state"][constants["STATE_POSITION"]])])
    q, k, v, gates = _split_heads(constants, buffers, 1)
    if constants["APPENDS"]:
        _append(constants, buffers, k, v, at)
    _attend(constants, buffers, q, gates, at)


def _split_parts(constants: Constants, buffers: Buffers) -> Array:
    """Return the parts (heads, splits, head_dim + 4): sums, maximum, denominator, two zeros."""
    here = _cached_queries(constants)
    rows = buffers["split_parts"].reshape(-1, constants["SPLITS"], constants["HEAD_DIM"] + 4)
    return rows[: here.stop - here.start]


def joined_parts(parts: Array) -> Array:
    """Return heads (heads, head_dim) from their parts (heads, splits, head_dim + 4).

    Sums of a part without keys, whose denominator is 0, are of a step before.
    """
    sums, highest, denominators, _ = np.split(parts.astype(np.float64), [-4, -3, -2], axis=2)
    weights = np.exp(highest - highest.max(axis=1, keepdims=True))
    sums = np.where(denominators > 0, weights * sums, 0).sum(axis=1)
    joined: Array = sums / (weights * denominators).sum(axis=1)
    return joined


def _split_starts(constants: Constants, buffers: Buffers) -> range:
    """Return the first of the keys in each part, in their order."""
    position = int(buffers["state"][constants["STATE_POSITION"]])
    n_keys = min(position + 1, constants.get("WINDOW", position + 1))
    alone, shared = constants["ALONE_KEYS"], -(-n_keys // constants["SPLITS"])
    size = alone if n_keys <= alone else max(constants["LEAST_KEYS"], shared)
    return range(0, n_keys, size)


@_by_rows
def attention_alone(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """As `attention_decode`, but only while there is one part."""
    assert len(_split_starts(constants, buffers)) == 1, "keys would be left out"
    attention_decode(constants, n_tokens, buffers)


@_by_rows
def attention_split(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """As `attention_decode`, but leave for each part of the keys what joins it to the others."""
    at = np.array([int(buffers["state"][constants["STATE_POSITION"]])])
    q, k, v, _ = _split_heads(constants, buffers, 1)
    if constants["APPENDS"]:
        _append(constants, buffers, k, v, at)
    scores, v = _scores(constants, buffers, q, at)
    parts, size = _split_parts(constants, buffers), constants["HEAD_DIM"]
    starts = _split_starts(constants, buffers)
    for part, first in enumerate(starts):
        keys = slice(first, first + starts.step)
        here = scores[:, 0, keys]
        weights = np.exp(here - here.max(axis=-1, keepdims=True))
        parts[:, part, :size] = np.einsum("hk,khd->hd", weights, v[keys])
        parts[:, part, size] = here.max(axis=-1)
        parts[:, part, size + 1] = weights.sum(axis=-1)
        parts[:, part, size + 2 :] = 0
    parts[:, len(starts) :, size:] = _NO_KEYS


@_by_rows
def attention_combine(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Join the parts."""
    n_parts = len(_split_starts(constants, buffers))
    out = joined_parts(_split_parts(constants, buffers)[:, :n_parts])
    gates = out
    if "qkv" in buffers:
        gates = _gates(constants, _rows(constants, buffers["qkv"], 1)[0])
    _write_output(constants, buffers, out[None], gates)


@_by_rows
def rope_append(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Append normed, rotated keys and values to the cache."""
    at = int(buffers["state"][constants["STATE_POSITION"]]) + np.arange(n_tokens)
    _, k, v, _ = _split_heads(constants, buffers, n_tokens)
    _append(constants, buffers, k, v, at)


def attention_prefill(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Causal attention of a chunk whose keys are in the cache."""
    count = int(buffers["state"][constants["STATE_N_TOKENS"]])
    at = int(buffers["state"][constants["STATE_POSITION"]]) + np.arange(count)
    q, _, _, gates = _split_heads(constants, buffers, count)
    _attend(constants, buffers, q, gates, at, _ahead(constants, buffers, count))
