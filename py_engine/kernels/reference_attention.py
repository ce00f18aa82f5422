"""What the attention kernels compute, in NumPy; see `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from py_engine.kernels.reference import Array, Buffers, Constants


def _rotate(
    constants: Constants, rope: Array, x: Array, positions: Array, sign: float = 1.0
) -> Array:
    """RoPE of x (tokens, heads, head_dim) from the two tables, by angle addition.

    A `sign` of -1 turns back.
    """
    half, bits = constants["HEAD_DIM"] // 2, constants["ROPE_FINE_BITS"]
    table = rope.reshape(-1, 2, half).astype(np.float64)
    coarse = table[positions >> bits]
    fine = table[constants["ROPE_COARSE"] + (positions & ((1 << bits) - 1))]
    cosine = (coarse[:, 0] * fine[:, 0] - coarse[:, 1] * fine[:, 1])[:, None]
    sine = sign * (coarse[:, 1] * fine[:, 0] + coarse[:, 0] * fine[:, 1])[:, None]
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)


def _split_heads(
    constants: Constants, buffers: Buffers, n_tokens: int
) -> tuple[Array, Array, Array]:
    """Return q, k and v, (tokens, heads, head_dim), normed where there are norms of heads."""
    heads, kv_heads = constants["N_HEADS"], constants["N_KV_HEADS"]
    rows = buffers["qkv"].reshape(-1, heads + 2 * kv_heads, constants["HEAD_DIM"])
    q, k, v = np.split(rows[:n_tokens].astype(np.float64), [heads, heads + kv_heads], axis=1)
    if "q_norm" in buffers:
        q, k = (
            x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + constants["EPSILON"]) * norm
            for x, norm in ((q, buffers["q_norm"]), (k, buffers["k_norm"]))
        )
    return q, k, v


def _cache(constants: Constants, words: Array) -> Array:
    shape = (constants["N_KV_HEADS"], constants["SLOTS"], constants["HEAD_DIM"])
    return words.view(np.float16).reshape(shape)


def _slots(constants: Constants, positions: Array) -> Array:
    """Return where positions lie in the cache."""
    if "WINDOW" not in constants:
        return positions
    sinks = constants["SINKS"]
    in_ring = sinks + (positions - sinks) % constants["RING"]
    slots: Array = np.where(positions < sinks, positions, in_ring)
    return slots


def _append(constants: Constants, buffers: Buffers, k: Array, v: Array, at: Array) -> None:
    here = _slots(constants, at)
    _cache(constants, buffers["k_cache"])[:, here] = k.transpose(1, 0, 2)
    _cache(constants, buffers["v_cache"])[:, here] = v.transpose(1, 0, 2)


def _hidden_by_window(constants: Constants, at: Array) -> Array:
    """Return how many positions after the sinks each query no longer sees."""
    window = constants.get("WINDOW", constants["SLOTS"])
    hidden: Array = np.maximum(0, at + 1 - window)
    return hidden


def _attend(constants: Constants, buffers: Buffers, q: Array, at: Array) -> None:
    """Attention of queries (tokens, heads, head_dim) that are rotated at their positions `at`."""
    sinks = constants["SINKS"]
    hidden = _hidden_by_window(constants, at)
    kept = np.arange(at[-1] + 1)
    kept = kept[(kept < sinks) | (kept >= sinks + hidden[0])]
    slots = _slots(constants, kept)
    n_rep = constants["N_HEADS"] // constants["N_KV_HEADS"]
    k = np.repeat(_cache(constants, buffers["k_cache"])[:, slots], n_rep, axis=0)
    v = np.repeat(_cache(constants, buffers["v_cache"])[:, slots], n_rep, axis=0)

    def scores_of(queries: Array) -> Array:
        scaled = queries * constants["SCALE"]
        products: Array = np.einsum("thd,hkd->htk", scaled, k.astype(np.float64))
        return products

    scores = scores_of(q)
    if sinks:
        from_window = scores_of(_rotate(constants, buffers["rope"], q, hidden, sign=-1.0))
        scores = np.where(kept < sinks, from_window, scores)
    visible = (kept <= at[:, None]) & ((kept < sinks) | (kept >= sinks + hidden[:, None]))
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = np.einsum("htk,hkd->thd", weights, v.astype(np.float64))
    buffers["output"][: out.size] = out.ravel()


def attention_decode(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Norms of heads, RoPE, append to the cache, attend: one token."""
    at = np.array([int(buffers["state"][constants["STATE_POSITION"]])])
    q, k, v = _split_heads(constants, buffers, 1)
    _append(constants, buffers, _rotate(constants, buffers["rope"], k, at), v, at)
    _attend(constants, buffers, _rotate(constants, buffers["rope"], q, at), at)


def rope_append(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Norm and rotate q in place, and k; append k and v to the cache."""
    at = int(buffers["state"][constants["STATE_POSITION"]]) + np.arange(n_tokens)
    q, k, v = _split_heads(constants, buffers, n_tokens)
    _append(constants, buffers, _rotate(constants, buffers["rope"], k, at), v, at)
    heads, kv_heads = constants["N_HEADS"], constants["N_KV_HEADS"]
    qkv = buffers["qkv"].reshape(-1, heads + 2 * kv_heads, constants["HEAD_DIM"])
    qkv[:n_tokens, :heads] = _rotate(constants, buffers["rope"], q, at)


def attention_prefill(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Causal attention of a chunk whose queries are rotated and whose keys are in the cache."""
    count = int(buffers["state"][constants["STATE_N_TOKENS"]])
    at = int(buffers["state"][constants["STATE_POSITION"]]) + np.arange(count)
    q, _, _ = _split_heads(constants, buffers, count)
    _attend(constants, buffers, q, at)
