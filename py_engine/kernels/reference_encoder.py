"""What the kernels of encoders compute, in NumPy; see `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from py_engine.kernels.reference import Buffers, Constants


def attention_bidirectional(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Attention of every token to all of its sequence, token by token."""
    heads, count = constants["N_HEADS"], int(buffers["state"][constants["STATE_N_TOKENS"]])
    qkv = buffers["qkv"].reshape(-1, 3, heads, constants["HEAD_DIM"])
    spans = buffers["spans"].reshape(-1, 2)[:count]
    output = buffers["output"].reshape(-1, heads, constants["HEAD_DIM"])
    for token, (first, end) in enumerate(spans.tolist()):
        q = qkv[token, 0].astype(np.float64) * constants["SCALE"]
        k, v = (qkv[first:end, part].astype(np.float64) for part in (1, 2))
        scores = np.einsum("hd,khd->hk", q, k)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        output[token] = np.einsum("hk,khd->hd", weights, v)


def pool(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Pool each sequence's rows: the first, or their mean; normalised where asked for."""
    x = buffers["x"].reshape(-1, constants["COLUMNS"])
    output = buffers["output"].reshape(-1, constants["COLUMNS"])
    for index, (first, end) in enumerate(buffers["sequences"].reshape(-1, 2).tolist()):
        if first == end:
            continue
        rows = x[first:end] if constants["MEAN"] else x[first : first + 1]
        vector = rows.astype(np.float64).mean(axis=0)
        if constants["NORMALIZE"]:
            vector /= max(np.linalg.norm(vector), 1e-12)
        output[index] = vector
