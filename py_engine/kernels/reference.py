"""What every kernel computes, in NumPy: the oracle of the kernel tests, and a GPU for unit tests.

A reference takes the kernel's constants, the number of tokens and its buffers by binding name (flat
arrays of the binding's scalar type, written in place where the kernel writes). Sums run in float64,
so that a comparison sees the kernel's error alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from py_engine.kernels import reference_encoder as encoder
from py_engine.kernels import reference_vision as vision
from py_engine.kernels.formats import BLOCK
from py_engine.kernels.reference_attention import (
    attention_alone,
    attention_combine,
    attention_decode,
    attention_prefill,
    attention_split,
    joined_parts,
    rope_append,
)
from py_engine.kernels.reference_delta import gated_delta
from py_engine.kernels.reference_formats import matrix_values
from py_engine.kernels.reference_relay import group_part, pack_blocks, quantize_rows, relay
from py_engine.kernels.reference_sampling import (
    adjust,
    logprobs,
    mask,
    narrow,
    sample,
    survey,
)

Array = npt.NDArray[Any]
Buffers = Mapping[str, Array]
Constants = Mapping[str, Any]


def unpack_matrix(constants: Constants, buffers: Buffers) -> Array:
    """Return the weight matrix (ROWS, COLUMNS) as float64 out of its buffers."""
    shape = constants["ROWS"], constants["COLUMNS"]
    return matrix_values(constants["format"], *shape, buffers).astype(np.float64)


def _normed(constants: Constants, x: Array, buffers: Buffers) -> Array:
    """Return rows x (tokens, COLUMNS) after the norm in `constants`."""
    x = x.astype(np.float64)
    if constants["norm"] == "layer":
        x = x - x.mean(axis=1, keepdims=True)
    shift: Array | float = buffers.get("norm_bias", 0.0)
    return _over_rms(x, constants["EPSILON"]) * buffers["norm"] + shift


def _over_rms(x: Array, epsilon: float) -> Array:
    """Return rows divided by their root mean squares."""
    scaled: Array = x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + epsilon)
    return scaled


def _of_branch(constants: Constants, buffers: Buffers) -> Array:
    """Return what a branch adds to the residual: rows (tokens, COLUMNS) after its own norm."""
    rows = buffers["branch"].reshape(-1, 4 * constants["BRANCH_STRIDE"])
    rows = rows[:, : constants["COLUMNS"]].astype(np.float64)
    return _over_rms(rows, constants["BRANCH_EPSILON"]) * buffers["branch_norm"]


def gelu(x: Array) -> Array:
    """x times the normal distribution's cumulative function."""
    erf = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))
    y: Array = x * (1 + erf) / 2
    return y


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": gelu,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
}


def _epilogue(constants: Constants, y: Array, buffers: Buffers) -> None:
    """Write products y (tokens, ROWS) to their columns of the output's first rows."""
    activation, first = _ACTIVATIONS[constants["activation"]], constants["FIRST_OUTPUT"]
    n_outputs, gated = constants["N_OUTPUTS"], constants["GATED"]
    written = slice(first, first + y.shape[1] // (2 if gated else 1))
    halves = np.split(y, 2, axis=1) if gated else [y]
    if "bias" in buffers:
        biases = buffers["bias"].reshape(-1, n_outputs)[:, written]
        halves = [half + bias for half, bias in zip(halves, biases, strict=True)]
    y = activation(halves[0])
    if gated:
        y = y * halves[1]
    if cap := constants["SOFT_CAP"]:
        y = cap * np.tanh(y / cap)
    rows = buffers["output"].reshape(-1, constants["OUTPUT_STRIDE"])[: len(y), written]
    rows[:] = y + rows if constants["RESIDUAL"] else y


def rounded_to_int8(x: Array) -> Array:
    """Return rows x (tokens, COLUMNS) with every block in 8 bits, as float64.

    In f32 as in kernels: which of two codes a value gets depends on it.
    """
    blocks = x.astype(np.float32).reshape(len(x), -1, BLOCK)
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    codes = np.round(blocks * (np.float32(127) / np.maximum(largest, np.float32(1e-30))))
    rounded: Array = codes.astype(np.float64) * (largest / np.float32(127))
    return rounded.reshape(x.shape)


def rounded_to_f16(x: Array) -> Array:
    """Return rows x (tokens, COLUMNS) in f16 relative to the largest of each block, as float64."""
    blocks = x.astype(np.float32).reshape(len(x), -1, BLOCK)
    largest = np.maximum(np.abs(blocks).max(axis=2, keepdims=True), np.float32(1e-30))
    rounded: Array = (blocks / largest).astype(np.float16).astype(np.float64) * largest
    return rounded.reshape(x.shape)


def _product(constants: Constants, x: Array, buffers: Buffers) -> Array:
    """Return W x for each token of x (tokens, COLUMNS)."""
    w = unpack_matrix(constants, buffers)
    if constants["activation_dtype"] == "int8":
        x = rounded_to_int8(x)
    elif constants["activation_dtype"] == "float16":
        x, w = rounded_to_f16(x), w.astype(np.float16).astype(np.float64)
    y: Array = x.astype(np.float64) @ w.T
    return y


def gemv(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """y = W (normed x or x) for each token, then the epilogue; a branch comes to x before.

    In place of x there may be the parts of attention.
    """
    x = _gemv_input(constants, buffers)
    if "branch" in buffers:
        x = x + _of_branch(constants, buffers)
    if "norm" in constants:
        x = _normed(constants, x, buffers)
    _epilogue(constants, _product(constants, x, buffers), buffers)


def _gemv_input(constants: Constants, buffers: Buffers) -> Array:
    """Return rows (tokens, COLUMNS) as they are before what is folded into a product."""
    if "split_parts" not in buffers:
        return buffers["x"].reshape(constants["BATCH"], -1)[:, : constants["COLUMNS"]]
    size, n_parts = constants["HEAD_DIM"], constants["PARTS"]
    parts = buffers["split_parts"].reshape(-1, n_parts, size + 4)[: constants["COLUMNS"] // size]
    return joined_parts(parts).reshape(1, -1)


def gemm(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Y = X W^T for the tokens that `state` counts, then the epilogue."""
    count = int(buffers["state"][constants["STATE_N_TOKENS"]])
    x = buffers["x"].reshape(-1, constants["COLUMNS"])[:count]
    _epilogue(constants, _product(constants, x, buffers), buffers)


def embed(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Gather embedding rows of a part of a table, with ids clamped to the table."""
    offset = constants["ID_OFFSET"]
    if "rows" in buffers:
        ids = buffers["ids"][buffers["rows"][: 4 * n_tokens : 4] + offset].astype(np.int64)
    elif constants["BY_POSITION"]:
        ids = np.arange(n_tokens) + int(buffers["ids"][offset])
    else:
        ids = buffers["ids"][offset : offset + n_tokens].astype(np.int64)
    rows = np.minimum(ids, constants["TABLE_ROWS"] - 1) - constants["FIRST_ROW"]
    here = np.flatnonzero((rows >= 0) & (rows < constants["ROWS"]))
    output = buffers["output"].reshape(-1, constants["ROW_STRIDE"])[:, : constants["COLUMNS"]]
    values = unpack_matrix(constants, buffers)[rows[here]] * constants["SCALE"]
    output[here] = output[here] + values if constants["ADD"] else values


def row_norm(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Normalise rows."""
    count = n_tokens if constants["BATCH"] else int(buffers["state"][constants["STATE_N_TOKENS"]])
    x, output = (
        rows.reshape(-1, constants["ROW_STRIDE"])[:count, : constants["COLUMNS"]]
        for rows in (buffers["x"], buffers.get("output", buffers["x"]))
    )
    rows = _normed(constants, x, buffers)
    if constants["target"] == "add_both":
        rows = rows + _of_branch(constants, buffers)[:count]
    output[:] = rows if constants["target"] in ("copy", "in_place") else output + rows


def last_row(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Copy the last token's row."""
    row = int(buffers["state"][constants["STATE_N_TOKENS"]]) - 1
    buffers["output"][:] = buffers["x"].reshape(-1, constants["COLUMNS"])[row]


def remember(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Write the token drawn last down at its position."""
    state = buffers["state"]
    buffers["history"][state[constants["STATE_POSITION"]]] = state[constants["STATE_TOKEN"]]


def recall(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Copy the tokens of a chunk out of the history."""
    state = buffers["state"]
    first, count = int(state[constants["STATE_POSITION"]]), int(state[constants["STATE_N_TOKENS"]])
    buffers["tokens"][:count] = buffers["history"][first : first + count]


REFERENCES: dict[str, Callable[[Constants, int, Buffers], None]] = {
    reference.__name__: reference
    for reference in (
        gemv, gemm, embed, row_norm, last_row, remember, recall,
        attention_decode, attention_split, attention_combine, attention_alone, rope_append,
        attention_prefill, gated_delta,
        survey, narrow, sample, mask, adjust, logprobs,
        relay, quantize_rows, pack_blocks, group_part,
        encoder.attention_bidirectional, encoder.pool,
        vision.resize_rows, vision.patches, vision.average_patches, vision.image_rows,
    )
}  # fmt: skip
