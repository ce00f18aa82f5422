"""What the kernels of image input compute, in NumPy; see `reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from py_engine.kernels.reference import Array, Buffers, Constants


def _filtered(name: str, distance: Array) -> Array:
    x = np.abs(distance)
    if name == "bilinear":
        values: Array = np.maximum(0.0, 1.0 - x)
        return values
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    cubic: Array = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return cubic


def _resized(constants: Constants, pixels: Array) -> Array:
    """Return pixels (n, any, 4) with their second axis resized."""
    length, size = pixels.shape[1], constants["SIZE"]
    scale = length / size
    stretch = max(scale, 1.0)
    weights = np.zeros((size, length))
    for place in range(size):
        center = (place + 0.5) * scale
        first = max(0, int(center - constants["SUPPORT"] * stretch + 0.5))
        end = min(length, int(center + constants["SUPPORT"] * stretch + 0.5))
        distances = (np.arange(first, end) + 0.5 - center) / stretch
        weights[place, first:end] = _filtered(constants["filter"], distances)
    weights /= weights.sum(axis=1, keepdims=True)
    values: Array = np.einsum("sl,nlc->nsc", weights, pixels)
    return np.clip(np.floor(values + 0.5), 0, 255)


def resize_rows(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Resize rows."""
    width, height = buffers["image"][:2].tolist()
    pixels = buffers["pixels"].view(np.uint8)[: 4 * width * height].reshape(height, width, 4)
    rows = _resized(constants, pixels).astype(np.uint8)
    buffers["output"].view(np.uint8)[: rows.size] = rows.ravel()


def patches(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Resize columns, normalise, and cut into patches."""
    height, size = int(buffers["image"][1]), constants["SIZE"]
    patch, side = constants["PATCH"], constants["SIDE"]
    pixels = buffers["pixels"].view(np.uint8)[: 4 * height * size].reshape(height, size, 4)
    values = _resized(constants, pixels.transpose(1, 0, 2)).transpose(1, 0, 2)[..., :3]
    mean, std = ([constants[f"{name}_{c}"] for c in "RGB"] for name in ("MEAN", "STD"))
    normal = (values * constants["RESCALE"] - mean) / std
    cut = normal[: side * patch, : side * patch].reshape(side, patch, side, patch, 3)
    rows = cut.transpose(0, 2, 4, 1, 3).reshape(side * side, -1)
    buffers["output"].reshape(side * side, -1)[:, : rows.shape[1]] = rows


def average_patches(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Average squares of patches."""
    side, pooled = constants["SIDE"], constants["POOLED"]
    across = side // pooled
    x = buffers["x"].reshape(across, pooled, across, pooled, -1).astype(np.float64)
    buffers["output"][:] = x.mean(axis=(1, 3)).ravel()


def image_rows(constants: Constants, n_tokens: int, buffers: Buffers) -> None:
    """Copy the rows of images to their tokens."""
    first, columns = constants["STATE_IMAGES"], constants["COLUMNS"]
    rows = buffers["state"][first : first + n_tokens].astype(np.int64)
    here = np.flatnonzero(rows)
    images = buffers["images"].reshape(-1, columns)
    buffers["output"].reshape(-1, columns)[here] = images[rows[here] - 1]
