"""Kernels of image input: resizing, cutting into patches, pooling them, placing an image's rows.

Pixels are u32 words of four bytes, red first. Resizing is PIL's, in two passes: along rows, then
along columns, each rounded to whole values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.wgsl import STATE_WORDS, kernel_spec

Filter = Literal["bilinear", "bicubic"]

IMAGE_WORDS = {"IMAGE_WIDTH": 0, "IMAGE_HEIGHT": 1}
IMAGE_BYTES = 16

STATE_IMAGES = len(STATE_WORDS)
"""Word of `state`, in models with image input, from which on each token of a chunk has 0, or 1 and
the number of the image row that it stands for."""

_WORKGROUP = 64
_SUPPORT: dict[Filter, float] = {"bilinear": 1.0, "bicubic": 2.0}
_IMAGE = Binding("image", "read", f"array<u32, {IMAGE_BYTES // 4}>")


def state_words(max_tokens: int) -> int:
    """Return the words of `state` in a model with image input."""
    return STATE_IMAGES + max_tokens


def resize_rows(label: str, size: int, resize_filter: Filter) -> KernelSpec:
    """Build the first pass: rows of any width to `size` pixels each.

    Buffers: pixels u32 (height, width), image u32 (4,) with width and height, output u32 (height,
    size). `n_tokens` of the dispatch is the height.
    """
    return kernel_spec(
        "resize_rows",
        label,
        snippets=(f"resize_{resize_filter}", "resize", "resize_rows"),
        bindings=(
            Binding("pixels", "read", "array<u32>"),
            _IMAGE,
            Binding("output", "read_write", "array<u32>"),
        ),
        constants={
            "SIZE": size,
            "SUPPORT": _SUPPORT[resize_filter],
            "WORKGROUP": _WORKGROUP,
            **IMAGE_WORDS,
            "filter": resize_filter,
        },
        groups_x=-(-size // _WORKGROUP),
        tokens_per_group=1,
    )


def patches(
    label: str,
    size: int,
    resize_filter: Filter,
    patch_size: int,
    patch_columns: int,
    *,
    rescale: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> KernelSpec:
    """Build the second pass: columns to `size` pixels, normalised, and cut into patches.

    Buffers: pixels u32 (height, size), image, output f32 (patches, patch_columns): the values of a
    patch by channel, row and column; columns behind them stay untouched. A value v becomes
    (v * rescale - mean) / std.
    """
    side = size // patch_size
    channels = {
        f"{name}_{channel}": float(value)
        for name, values in (("MEAN", mean), ("STD", std))
        for channel, value in zip("RGB", values, strict=True)
    }
    return kernel_spec(
        "patches",
        label,
        snippets=(f"resize_{resize_filter}", "resize", "patches"),
        bindings=(
            Binding("pixels", "read", "array<u32>"),
            _IMAGE,
            Binding("output", "read_write", f"array<f32, {side * side * patch_columns}>"),
        ),
        constants={
            "SIZE": size,
            "SUPPORT": _SUPPORT[resize_filter],
            "PATCH": patch_size,
            "SIDE": side,
            "COLUMNS": patch_columns,
            "RESCALE": float(rescale),
            **channels,
            "WORKGROUP": _WORKGROUP,
            **IMAGE_WORDS,
            "filter": resize_filter,
        },
        groups_x=-(-size // _WORKGROUP),
        groups_y=size,
    )


def average_patches(label: str, side: int, pooled_side: int, hidden_size: int) -> KernelSpec:
    """Build the mean of squares of patches.

    Shapes: x f32 (side * side, hidden_size), output f32 ((side / pooled_side)^2, hidden_size).
    """
    tokens = (side // pooled_side) ** 2
    return kernel_spec(
        "average_patches",
        label,
        snippets=("average_patches",),
        bindings=(
            Binding("x", "read", f"array<vec4f, {side * side * hidden_size // 4}>"),
            Binding("output", "read_write", f"array<vec4f, {tokens * hidden_size // 4}>"),
        ),
        constants={
            "SIDE": side,
            "POOLED": pooled_side,
            "COLUMNS": hidden_size,
            "WORKGROUP": _WORKGROUP,
        },
        groups_x=-(-hidden_size // 4 // _WORKGROUP),
        groups_y=tokens,
    )


def image_rows(label: str, hidden_size: int, max_tokens: int, n_rows: int) -> KernelSpec:
    """Build the copy of images' rows to the tokens of a chunk that stand for them.

    Buffers: images f32 (n_rows, hidden_size), state with a word for each token, output f32
    (max_tokens, hidden_size). Rows of other tokens stay untouched.
    """
    return kernel_spec(
        "image_rows",
        label,
        snippets=("image_rows",),
        bindings=(
            Binding("images", "read", f"array<vec4f, {n_rows * hidden_size // 4}>"),
            Binding("state", "read", f"array<u32, {state_words(max_tokens)}>"),
            Binding("output", "read_write", f"array<vec4f, {max_tokens * hidden_size // 4}>"),
        ),
        constants={
            "COLUMNS": hidden_size,
            "STATE_IMAGES": STATE_IMAGES,
            "WORKGROUP": _WORKGROUP,
        },
        groups_x=-(-hidden_size // 4 // _WORKGROUP),
        tokens_per_group=1,
    )
