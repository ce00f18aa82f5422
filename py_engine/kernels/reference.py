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
from py_engine.kernels.reference_sampling import adjust, logprobs, mask, sample

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


REFERENCES: dict[str, Callable[[Constants, int, Buffers], None]] = {
    reference.__name__: reference
    for reference in (
        gemv, gemm, embed, rms_norm, last_row, convert,
        attention_decode, rope_append, attention_prefill,
        sample, mask, adjust, logprobs,
        encoder.layer_norm, encoder.attention_bidirectional, encoder.pool,
    )
}  # fmt: skip
