"""What the attention kernels compute, in NumPy; see `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from py_engine.kernels.reference import Array, Buffers, Constants


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


def _split_heads(
    constants: Constants, buffers: Buffers, n_tokens: int
) -> tuple[Array, Array, Array, Array]:
    """Return q, k, v and the gates, (tokens, heads, head_dim), q and k normed if they are."""
    heads, kv_heads = constants["N_HEADS"], constants["N_KV_HEADS"]
    each = constants["HEADS_PER_QUERY"]
    rows = buffers["qkv"].reshape(-1, each * heads + 2 * kv_heads, constants["HEAD_DIM"])
    rows = rows[:n_tokens].astype(np.float64)
    queries, k, v = np.split(rows, [each * heads, each * heads + kv_heads], axis=1)
    q, gates = queries[:, ::each], queries[:, each - 1 :: each]
    if "QK_NORM" in constants:
        q = _normed(constants, q, buffers["q_norm"])
        k = _normed(constants, k, buffers["k_norm"])
    return q, k, v, gates


def _cache(constants: Constants, words: Array) -> Array:
    """Return a cache (slots, heads, head_dim), of as many slots as the buffer has room for."""
    heads, size = constants["CACHE_HEADS"], constants["HEAD_DIM"]
    halfs = words.view(np.float16)
    return halfs[: len(halfs) // (heads * size) * heads * size].reshape(-1, heads, size)


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
    _cache(constants, buffers["k_cache"])[here] = k[:, first : first + count]
    _cache(constants, buffers["v_cache"])[here] = v[:, first : first + count]


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
    sinks, n_rep = constants["SINKS"], constants["N_HEADS"] // constants["N_KV_HEADS"]
    hidden = np.maximum(0, at + 1 - constants.get("WINDOW", at[-1] + 1))
    kept = np.arange(at[-1] + 1)
    kept = kept[(kept < sinks) | (kept >= sinks + hidden[0])]
    slots = _slots(constants, kept)
    k = np.repeat(_cache(constants, buffers["k_cache"])[slots], n_rep, axis=1).astype(np.float64)
    v = np.repeat(_cache(constants, buffers["v_cache"])[slots], n_rep, axis=1).astype(np.float64)
    first = constants["FIRST_CACHE_HEAD"] * n_rep
    here = slice(first, first + k.shape[1])
    q = q[:, here] * _query_scale(constants, at)[:, None, None]
    scores = np.einsum("thd,khd->htk", _rotate(constants, buffers, q, at), k)
    if sinks:
        from_window = np.einsum("thd,khd->htk", _rotate(constants, buffers, q, at - hidden), k)
        scores = np.where(kept < sinks, from_window, scores)
    if "SOFT_CAP" in constants:
        scores = constants["SOFT_CAP"] * np.tanh(scores / constants["SOFT_CAP"])
    last = (at + ahead)[:, None]
    visible = (kept <= last) & ((kept < sinks) | (kept >= sinks + hidden[:, None]))
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = np.einsum("htk,khd->thd", weights, v)
    if constants["HEADS_PER_QUERY"] == 2:
        out = out / (1 + np.exp(-gates[:, here]))
    rows = buffers["output"].reshape(-1, constants["N_HEADS"], constants["HEAD_DIM"])
    rows[: len(at), here] = out


def attention_decode(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Norms of heads, RoPE, append to the cache, attend: one token."""
    at = np.array([int(buffers["state"][constants["STATE_POSITION"]])])
    q, k, v, gates = _split_heads(constants, buffers, 1)
    _append(constants, buffers, k, v, at)
    _attend(constants, buffers, q, gates, at)


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
