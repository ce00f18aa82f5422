"""What the kernels that run while weights load compute, in NumPy; see `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from py_engine.kernels.formats import MATRIX_FORMATS
from py_engine.kernels.group_quantization import f32_from_bf16, quantize
from py_engine.kernels.reference_formats import packed_blocks
from py_engine.kernels.relay import PIECE_WORDS

if TYPE_CHECKING:
    from py_engine.kernels.reference import Array, Buffers, Constants

_TYPES = {
    "f32": np.float32,
    "u32": np.uint32,
    "f16": np.float16,
    "bf16": np.uint16,
    "u16": np.uint16,
}


def _read(constants: Constants, buffers: Buffers) -> Array:
    """Return the piece's elements, (rows, columns) of the target, as they are stored."""
    rows, columns = buffers["piece"][:2].tolist()
    stored = buffers["source"].view(_TYPES[constants["source"]])[: rows * columns]
    return (
        stored.reshape(columns, rows).T
        if constants["transposed"]
        else stored.reshape(rows, columns)
    )


def _widened(source: str, stored: Array) -> Array:
    return f32_from_bf16(stored) if source == "bf16" else stored.astype(np.float32)


def _places(buffers: Buffers) -> tuple[Array, Array]:
    """Return which of the piece's rows are kept, and their rows in the target."""
    words = {name: int(buffers["piece"][at]) for name, at in PIECE_WORDS.items()}
    rows = words["PIECE_FIRST_ROW"] + np.arange(words["PIECE_ROWS"])
    if head := words["PIECE_ROPE_PAIRS"]:
        i = rows % head
        rows = rows - i + i // 2 + i % 2 * (head // 2)
    to = (rows + words["PIECE_TO_ROW"]) % 2**32
    kept = np.flatnonzero((to >= words["PIECE_KEEP_FIRST"]) & (to < words["PIECE_KEEP_END"]))
    return kept, to[kept]


def _scatter(target: Array, places: Array, rows: Array, width: int = 0) -> None:
    """Write rows to their places, `width` apart (0: as long as they are), in a flat buffer."""
    flat = target.view(rows.dtype)
    size = rows.shape[1]
    width = width or size
    flat[: len(flat) // width * width].reshape(-1, width)[places, :size] = rows


def _report(buffers: Buffers, overflowing: Array) -> None:
    """Keep the largest magnitude, as bits of an f32."""
    bits = np.abs(overflowing).astype(np.float32).view(np.uint32)
    buffers["report"][0] = max(int(buffers["report"][0]), *bits.ravel().tolist(), 0)


def relay(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Convert elements, and write them where they belong."""
    kept, places = _places(buffers)
    rows, target = _read(constants, buffers)[kept], constants["target"]
    if constants["source"] != target or constants["add_one"]:
        wide = _widened(constants["source"], rows)
        wide = wide + np.float32(1) if constants["add_one"] else wide
        with np.errstate(over="ignore"):
            rows = wide.astype(_TYPES[target])
        _report(buffers, wide[~np.isfinite(rows)])
    width = int(buffers["piece"][PIECE_WORDS["PIECE_WIDTH"]])
    _scatter(buffers["output"], places, np.ascontiguousarray(rows), width)


def quantize_rows(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Quantise rows, and write codes and scales where they belong."""
    kept, places = _places(buffers)
    rows = _widened(constants["source"], _read(constants, buffers)[kept])
    weight_format = constants["format"]
    words, scales = quantize(rows, weight_format)
    _report(buffers, rows.reshape(*scales.shape, -1)[~np.isfinite(scales)])
    _scatter(buffers["weights"], places, words)
    kind = np.float16 if weight_format == "q4f16_1" else np.float32
    _scatter(buffers["scales"], places, scales.astype(kind))


def pack_blocks(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Lay blocks out, and write them where they belong."""
    kept, places = _places(buffers)
    rows, columns = buffers["piece"][:2].tolist()
    form = MATRIX_FORMATS[constants["format"]]
    n_blocks = rows * form.row_blocks(columns)
    stored = buffers["source"].view(np.uint8)[: n_blocks * constants["BLOCK_BYTES"]]
    packed = packed_blocks(constants["format"], stored.reshape(n_blocks, -1))
    for name, blocks in packed.items():
        _scatter(buffers[name], places, blocks.reshape(rows, -1)[kept])


def group_part(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Write a part of an AWQ or GPTQ matrix where it belongs."""
    kept, places = _places(buffers)
    rows, columns = buffers["piece"][:2].tolist()
    part = constants["part"]
    if part == "scales":
        stored: Array = buffers["source"].view(np.uint16)[: rows * columns].astype(np.uint32)
    else:
        order = [0, 4, 1, 5, 2, 6, 3, 7] if part.startswith("awq") else list(range(8))
        words = buffers["source"][: rows * columns // 8, None]
        stored = (words >> np.array(order, np.uint32) * 4) & np.uint32(15)
    values: Array = stored.reshape(columns, rows).T[kept]
    if part == "awq_codes":
        shifts = np.arange(8, dtype=np.uint32) * 4
        values = np.bitwise_or.reduce(values.reshape(len(kept), -1, 8) << shifts, axis=-1)
    elif part != "scales":
        values = (values + np.uint32(constants["ADDED"])) << 16
    flat = buffers["output"]
    size = values.shape[1]
    flat[: len(flat) // size * size].reshape(-1, size)[places] |= values
