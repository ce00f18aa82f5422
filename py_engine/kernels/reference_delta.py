"""What the kernel of linear attention computes, in NumPy; see `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from py_engine.kernels.reference import Array, Buffers, Constants


def _silu(x: Array) -> Array:
    y: Array = x / (1 + np.exp(-x))
    return y


def _unit(x: Array) -> Array:
    y: Array = x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)
    return y


def _head_channels(constants: Constants) -> Array:
    """Return which convolved channels each value head reads, (value_heads, channels)."""
    keys, values = constants["N_KEY_HEADS"], constants["N_VALUE_HEADS"]
    key_dim, value_dim = constants["KEY_DIM"], constants["VALUE_DIM"]
    key_head = np.arange(values)[:, None] // (values // keys)
    query = key_head * key_dim + np.arange(key_dim)
    value = np.arange(values * value_dim).reshape(values, value_dim)
    channels = [query, keys * key_dim + query, 2 * keys * key_dim + value]
    return np.concatenate(channels, axis=1)


def gated_delta(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Convolution, gated delta rule and gated norm of the tokens of a step, one by one."""
    heads, key_dim = constants["N_VALUE_HEADS"], constants["KEY_DIM"]
    value_dim, size = constants["VALUE_DIM"], constants["CONV_SIZE"]
    channels = _head_channels(constants)
    n_channels = 2 * constants["N_KEY_HEADS"] * key_dim + heads * value_dim
    count = int(buffers["state"][constants["STATE_N_TOKENS"]])
    width = n_channels + heads * value_dim + 2 * heads
    rows = buffers["projected"].reshape(-1, width)[:count].astype(np.float64)
    z, b, a = np.split(rows[:, n_channels:], [heads * value_dim, heads * (value_dim + 1)], axis=1)
    taps = buffers["conv"].reshape(n_channels, size)[channels]
    a_log, dt_bias = buffers["gates"].astype(np.float64).reshape(2, heads)
    history = buffers["history"].reshape(heads, -1, size - 1)
    memory = buffers["memory"].reshape(heads, key_dim, value_dim)
    if buffers["state"][constants["STATE_POSITION"]] == 0:
        history[:] = memory[:] = 0
    held, past = memory.astype(np.float64), history.astype(np.float64)
    output = buffers["output"].reshape(-1, heads, value_dim)
    for token in range(count):
        seen = np.concatenate([past, rows[token][channels][:, :, None]], axis=2)
        past = seen[:, :, 1:]
        mixed = _silu((seen * taps).sum(axis=2))
        q, k, v = np.split(mixed, [key_dim, 2 * key_dim], axis=1)
        q, k = _unit(q) / np.sqrt(key_dim), _unit(k)
        decay = np.exp(-np.exp(a_log) * np.logaddexp(0, a[token] + dt_bias))
        held = held * decay[:, None, None]
        beta = 1 / (1 + np.exp(-b[token]))
        change = beta[:, None] * (v - np.einsum("hk,hkv->hv", k, held))
        held = held + k[:, :, None] * change[:, None]
        found = np.einsum("hk,hkv->hv", q, held)
        scale = np.sqrt(np.mean(found * found, axis=1, keepdims=True) + constants["EPSILON"])
        gate = _silu(z[token].reshape(heads, value_dim))
        output[token] = found / scale * buffers["norm"] * gate
    history[:], memory[:] = past, held
