"""What every kernel computes, in NumPy: the oracle of the kernel tests, and a GPU for unit tests.

A reference takes the kernel's constants, the number of tokens and its buffers by binding name (flat
arrays of the binding's scalar type, written in place where the kernel writes). Sums run in float64,
so that a comparison sees the kernel's error alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from py_engine.kernels import reference_encoder as encoder
from py_engine.kernels.reference_attention import attention_decode, attention_prefill, rope_append

Array = npt.NDArray[Any]
Buffers = Mapping[str, Array]
Constants = Mapping[str, Any]


def unpack_matrix(constants: Constants, buffers: Buffers) -> Array:
    """Return the weight matrix (ROWS, COLUMNS) as float64 out of its buffers."""
    rows, columns = constants["ROWS"], constants["COLUMNS"]
    weights = buffers["weights"]
    match constants["format"]:
        case "q0f32":
            return weights.view(np.float32).reshape(rows, columns).astype(np.float64)
        case "q0f16":
            return weights.view(np.float16).reshape(rows, columns).astype(np.float64)
        case "q4f16_1":
            scales = buffers["scales"].view(np.float16)[: rows * columns // 32]
        case _:
            scales = buffers["scales"].view(np.float32)
    words = weights.reshape(rows, columns // 8, 1)
    codes = (words >> (4 * np.arange(8, dtype=np.uint32))) & 15
    values = (codes.astype(np.float64) - 7).reshape(rows, columns // 32, 32)
    return (values * scales.reshape(rows, -1, 1).astype(np.float64)).reshape(rows, columns)


def _epilogue(constants: Constants, y: Array, buffers: Buffers) -> None:
    """Write products y (tokens, ROWS) to the first rows of the output."""
    if "bias" in buffers:
        y = y + buffers["bias"]
    if constants["epilogue"] == "bias_gelu":
        y = encoder.gelu(y)
    if constants["epilogue"] == "swiglu":
        gate, up = np.split(y, 2, axis=1)
        y = gate / (1 + np.exp(-gate)) * up
    rows = buffers["output"][: y.size].reshape(y.shape)
    rows[:] = y + rows if constants["RESIDUAL"] else y


def gemv(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """y = W (RMSNorm(x) or x), then the epilogue."""
    x = buffers["x"].astype(np.float64)
    if "norm" in buffers:
        x = x / np.sqrt(np.mean(x * x) + constants["EPSILON"]) * buffers["norm"]
    _epilogue(constants, (unpack_matrix(constants, buffers) @ x)[None], buffers)


def gemm(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Y = X W^T for the tokens that `state` counts, then the epilogue."""
    count = int(buffers["state"][constants["STATE_N_TOKENS"]])
    x = buffers["x"].reshape(-1, constants["COLUMNS"])[:count].astype(np.float64)
    _epilogue(constants, x @ unpack_matrix(constants, buffers).T, buffers)


def embed(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Gather embedding rows, with ids clamped to the vocabulary."""
    offset = constants["TOKEN_OFFSET"]
    ids = np.minimum(buffers["tokens"][offset : offset + n_tokens], constants["ROWS"] - 1)
    output = buffers["output"].reshape(-1, constants["COLUMNS"])[:n_tokens]
    rows = unpack_matrix(constants, buffers)[ids]
    output[:] = output + rows if constants["ADD"] else rows


def rms_norm(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Scale rows to unit root mean square, then by the norm's weight."""
    x = buffers["x"].reshape(-1, constants["COLUMNS"])[:n_tokens].astype(np.float64)
    scale = 1 / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + constants["EPSILON"])
    buffers["output"].reshape(-1, constants["COLUMNS"])[:n_tokens] = x * scale * buffers["norm"]


def last_row(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Copy the last token's row."""
    row = int(buffers["state"][constants["STATE_N_TOKENS"]]) - 1
    buffers["output"][:] = buffers["x"].reshape(-1, constants["COLUMNS"])[row]


def convert(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Widen f16 or bf16 to f32."""
    words = buffers["source"]
    if constants["source"] == "f16":
        buffers["output"][:] = words.view(np.float16)
    else:
        buffers["output"][:] = (words.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def uniform_number(seed_low: int, seed_high: int, step: int) -> float:
    """Return the uniform number in (0, 1] of one draw."""

    def pcg(value: int) -> int:
        s = (value * 747796405 + 2891336453) & 0xFFFFFFFF
        word = (((s >> ((s >> 28) + 4)) ^ s) * 277803737) & 0xFFFFFFFF
        return (word >> 22) ^ word

    bits = pcg(seed_low ^ pcg(seed_high ^ pcg(step)))
    return float(np.float32(np.float32(bits >> 8) + np.float32(0.5)) * np.float32(2.0**-24))


def kept_by_top_p(probabilities: Array, top_p: float) -> Array:
    """Return which tokens are in the smallest set whose mass reaches `top_p`, with border ties."""
    order = np.sort(probabilities)[::-1]
    reached = np.cumsum(order) >= top_p * order.sum()
    kept: Array = probabilities >= order[int(np.argmax(reached))]
    return kept


def sample(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Draw a token by greedy choice, or temperature, top_p and inverse CDF; advance the state."""
    logits, state = buffers["logits"].astype(np.float64), buffers["state"]
    temperature, top_p = (float(x) for x in buffers["sampling"][:2].view(np.float32))
    token = int(np.argmax(logits))
    if temperature > 1e-5:
        p = np.exp((logits - logits.max()) / temperature)
        p = np.where(kept_by_top_p(p, top_p), p, 0.0) if top_p < 1 else p
        seed_low, seed_high = (int(x) for x in buffers["sampling"][2:4])
        u = uniform_number(seed_low, seed_high, int(state[constants["STATE_STEP"]]))
        token = int(np.argmax(np.cumsum(p) > min(u, 1 - 1e-9) * p.sum()))
    state[constants["STATE_TOKEN"]] = token
    state[constants["STATE_POSITION"]] += state[constants["STATE_N_TOKENS"]]
    state[constants["STATE_N_TOKENS"]] = 1
    state[constants["STATE_STEP"]] += 1


REFERENCES: dict[str, Callable[[Constants, int, Buffers], None]] = {
    reference.__name__: reference
    for reference in (
        gemv, gemm, embed, rms_norm, last_row, convert,
        attention_decode, rope_append, attention_prefill, sample,
        encoder.layer_norm, encoder.attention_bidirectional, encoder.pool,
    )
}  # fmt: skip
