"""What the weights of every format are worth, in NumPy; see `reference.py`.

Values are exact in f32 but for the one addition of the formats with a minimum, which rounds once:
so a GPU that fuses the product into it computes the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from py_engine.kernels.formats import MATRIX_FORMATS, GgufFormat, MlcFormat, WeightFormat
from py_engine.kernels.group_quantization import CODES, dequantize

Array = npt.NDArray[Any]


def matrix_values(
    weight_format: WeightFormat, rows: int, columns: int, buffers: Mapping[str, Array]
) -> Array:
    """Return the matrix, f32 (rows, columns), that lies in `buffers` (any scalar type)."""
    buffers = {name: buffer.ravel() for name, buffer in buffers.items()}
    weights = buffers["weights"]
    match weight_format:
        case "q0f32":
            values = weights.view(np.float32)
        case "q0f16":
            values = weights.view(np.float16).astype(np.float32)
        case "q0bf16":
            values = (weights.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        case "q4f16_1" | "q4f32_1" | "q3f16_1":
            values = _group_quantized(weight_format, rows, columns, buffers)
        case "q4g32" | "q4g64" | "q4g128":
            values = _with_zeros(buffers)
        case _:
            values = _gguf_values(weight_format, rows, columns, buffers)
    return values.reshape(rows, -1)[:, :columns]


def _group_quantized(
    weight_format: MlcFormat, rows: int, columns: int, buffers: Mapping[str, Array]
) -> Array:
    form = MATRIX_FORMATS[weight_format]
    n_groups = form.row_blocks(columns)
    kind = np.float16 if form.scale == "f16" else np.float32
    scales = buffers["scales"].view(kind)[: rows * n_groups].astype(np.float32)
    words = buffers["weights"].view(np.uint32).reshape(rows, -1)
    return dequantize(words, scales.reshape(rows, n_groups), columns, weight_format)


def _with_zeros(buffers: Mapping[str, Array]) -> Array:
    """AWQ's and GPTQ's formula, (code - zero) * scale."""
    pairs = buffers["scales"].view(np.uint32)
    codes = (buffers["weights"].view(np.uint32)[:, None] >> CODES["q4f16_1"].shifts) & np.uint32(15)
    centred = codes.reshape(len(pairs), -1).astype(np.float32) - (pairs >> 16)[:, None]
    scales = (pairs & 0xFFFF).astype(np.uint16).view(np.float16)
    values: Array = (centred * scales[:, None]).astype(np.float32)
    return values


def _gguf_values(
    weight_format: GgufFormat, rows: int, columns: int, buffers: Mapping[str, Array]
) -> Array:
    form = MATRIX_FORMATS[weight_format]
    n_blocks = rows * form.row_blocks(columns)
    body = buffers["weights"].view(np.uint8).reshape(n_blocks, 4 * form.block_words)
    if form.scale is not None:
        d = buffers["scales"].view(np.float16)[:n_blocks, None].astype(np.float32)
        return _SCALED_CODES[weight_format](body) * d
    return _WHOLE_BLOCKS[weight_format](body)


def packed_blocks(weight_format: GgufFormat, blocks: Array) -> dict[str, Array]:
    """Lay GGUF's blocks, u8 (n, bytes of a block), out as they lie on the GPU."""
    form = MATRIX_FORMATS[weight_format]
    size = 4 * form.block_words
    if form.scale is not None:
        d, body = np.ascontiguousarray(blocks[:, :2]), np.ascontiguousarray(blocks[:, 2:])
        if weight_format == "q4_0":
            codes = _parts(body, 16, (0, 4), 15)
            body = codes[:, ::2] | (codes[:, 1::2] << 4)
        return {"weights": body.view(np.uint32), "scales": d.view(np.uint16)}
    padded = np.zeros((len(blocks), size), np.uint8)
    padded[:, : blocks.shape[1]] = blocks
    return {"weights": padded.view(np.uint32)}


def _half(body: Array, at: int) -> Array:
    """Return the f16 at a byte of every block, f32 (n, 1)."""
    return np.ascontiguousarray(body[:, at : at + 2]).view(np.float16).astype(np.float32)


def _parts(body: Array, width: int, shifts: tuple[int, ...], mask: int) -> Array:
    """Return u8 (n, codes): of every `width` bytes all parts at the first shift, then the next."""
    bytes_ = body.reshape(len(body), -1, 1, width)
    shifted = bytes_ >> np.array(shifts, np.uint8).reshape(-1, 1)
    codes: Array = (shifted & np.uint8(mask)).reshape(len(body), -1)
    return codes


def _five_bits(fifth: Array, nibbles: Array) -> Array:
    """Join 4 bytes of fifth bits and 16 bytes of nibbles."""
    high = np.unpackbits(fifth, axis=1, bitorder="little")
    codes: Array = _parts(nibbles, 16, (0, 4), 15) | (high << 4)
    return codes


def _affine(codes: Array, scale: Array, minimum: Array) -> Array:
    """Return scale * code - minimum, both of a run of equally many codes."""
    runs: Array = codes.reshape(*scale.shape, -1).astype(np.float32)
    values: Array = (scale[..., None] * runs - minimum[..., None]).reshape(len(codes), -1)
    return values


def _k_scales(body: Array) -> tuple[Array, Array]:
    """Return d * scale and dmin * minimum of the eight runs of Q4_K and Q5_K."""
    s, m, both = body[:, 4:8], body[:, 8:12], body[:, 12:16]
    scales = np.concatenate([s & 63, (both & 15) | ((s >> 2) & 48)], axis=1)
    minima = np.concatenate([m & 63, (both >> 4) | ((m >> 2) & 48)], axis=1)
    return _half(body, 0) * scales, _half(body, 2) * minima


def _q2_k(body: Array) -> Array:
    scales = body[:, :16]
    codes = _parts(body[:, 16:80], 32, (0, 2, 4, 6), 3)
    return _affine(codes, _half(body, 80) * (scales & 15), _half(body, 82) * (scales >> 4))


def _q3_k(body: Array) -> Array:
    low = _parts(body[:, 96:104], 8, (0, 4), 15)
    high = _parts(body[:, 104:108], 4, (0, 2, 4, 6), 3)
    scales = _half(body, 108) * ((low | (high << 4)).astype(np.float32) - 32)
    third = _parts(body[:, :32], 32, tuple(range(8)), 1)
    codes = _parts(body[:, 32:96], 32, (0, 2, 4, 6), 3) | (third << 2)
    runs = codes.reshape(len(body), 16, 16).astype(np.float32) - 4
    values: Array = scales[..., None] * runs
    return values


def _q5_k(body: Array) -> Array:
    fifth = _parts(body[:, 16:48], 32, tuple(range(8)), 1)
    return _affine(_parts(body[:, 48:], 32, (0, 4), 15) | (fifth << 4), *_k_scales(body))


def _q6_k(body: Array) -> Array:
    low = _parts(body[:, :128], 64, (0, 4), 15)
    high = _parts(body[:, 128:192], 32, (0, 2, 4, 6), 3)
    scales = _half(body, 208) * body[:, 192:208].view(np.int8).astype(np.float32)
    runs = (low | (high << 4)).reshape(len(body), 16, 16).astype(np.float32) - 32
    values: Array = scales[..., None] * runs
    return values


_SCALED_CODES: dict[GgufFormat, Callable[[Array], Array]] = {
    "q4_0": lambda body: (
        np.stack([body & 15, body >> 4], -1).reshape(len(body), -1) - np.float32(8)
    ),
    "q5_0": lambda body: _five_bits(body[:, :4], body[:, 4:]).astype(np.float32) - 16,
    "q8_0": lambda body: body.view(np.int8).astype(np.float32),
}

_WHOLE_BLOCKS: dict[GgufFormat, Callable[[Array], Array]] = {
    "q4_1": lambda body: _affine(
        _parts(body[:, 4:], 16, (0, 4), 15), _half(body, 0), -_half(body, 2)
    ),
    "q5_1": lambda body: _affine(
        _five_bits(body[:, 4:8], body[:, 8:]), _half(body, 0), -_half(body, 2)
    ),
    "q2_k": _q2_k,
    "q3_k": _q3_k,
    "q4_k": lambda body: _affine(_parts(body[:, 16:], 32, (0, 4), 15), *_k_scales(body)),
    "q5_k": _q5_k,
    "q6_k": _q6_k,
}
