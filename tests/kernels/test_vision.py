"""Resizing, patches, pooling and placing of images against NumPy; attention that sees an image."""

from __future__ import annotations

import numpy as np
import pytest

from py_engine.kernels.attention import attention_prefill, rope_append
from py_engine.kernels.attention_shape import AttentionShape, SlidingWindow, rope_table
from py_engine.kernels.tuning import Tuning
from py_engine.kernels.vision import (
    STATE_IMAGES,
    average_patches,
    image_rows,
    patches,
    resize_rows,
    state_words,
)
from tests.kernels.cases import RunKernel, assert_close, expected_and_found, poisoned

SIZES = [(48, 48), (5, 7), (47, 130), (300, 20), (1, 1)]
"""Width and height of pictures that become 48 pixels a side."""


def pixels(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width + height)
    return rng.integers(0, 2**32, width * height, dtype=np.uint32)


def worst_step(found: tuple[np.ndarray, np.ndarray]) -> int:
    """Return the largest difference of bytes."""
    expected, seen = (each.view(np.uint8).astype(int) for each in found)
    return int(np.abs(expected - seen).max())


@pytest.mark.parametrize("resize_filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rows(run_kernel: RunKernel, resize_filter: str, size: tuple[int, int]) -> None:
    width, height = size
    inputs = {
        "pixels": pixels(width, height),
        "image": np.array([width, height, 0, 0], np.uint32),
        "output": poisoned(height * 48),
    }
    spec = resize_rows("rows under test", 48, resize_filter)
    found = expected_and_found(run_kernel, spec, inputs, height)["output"]
    assert worst_step(found) <= 1  # a mean that is nearly half a step is rounded up or down


@pytest.mark.parametrize("resize_filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "patch"), [(48, 6), (5, 16), (130, 7)])
def test_patches(run_kernel: RunKernel, resize_filter: str, height: int, patch: int) -> None:
    side, columns = 48 // patch, -(-3 * patch * patch // 32) * 32
    inputs = {
        "pixels": pixels(48, height),
        "image": np.array([9, height, 0, 0], np.uint32),
        "output": poisoned(side * side * columns),
    }
    mean, std = (0.5, 0.25, 0.4), (0.5, 0.3, 0.2)
    spec = patches(
        "patches under test",
        48,
        resize_filter,
        patch,
        columns,
        rescale=1 / 255,
        mean=mean,
        std=std,
    )
    expected, found = expected_and_found(run_kernel, spec, inputs)["output"]
    written = 3 * patch * patch
    tables = [each.view(np.float32).reshape(-1, columns) for each in (expected, found)]
    assert (tables[0][:, written:].view(np.uint32) == tables[1][:, written:].view(np.uint32)).all()
    difference = np.abs(tables[0][:, :written] - tables[1][:, :written])
    assert difference.max() <= 1.01 / 255 / min(std)  # one step
    assert (difference > 1e-5).mean() < 0.01


@pytest.mark.parametrize(("side", "pooled", "hidden"), [(8, 2, 64), (6, 3, 288), (4, 1, 32)])
def test_average(run_kernel: RunKernel, side: int, pooled: int, hidden: int) -> None:
    x = np.random.default_rng(side).normal(0, 3, (side * side, hidden)).astype(np.float32)
    inputs = {"x": x, "output": poisoned((side // pooled) ** 2 * hidden)}
    spec = average_patches("average under test", side, pooled, hidden)
    assert_close(expected_and_found(run_kernel, spec, inputs)["output"], 2e-6)


def test_image_rows(run_kernel: RunKernel) -> None:
    rng = np.random.default_rng(3)
    state = np.zeros(state_words(9), np.uint32)
    state[STATE_IMAGES:] = [0, 5, 6, 0, 1, 0, 8, 2, 3]
    inputs = {
        "images": rng.normal(size=(8, 96)).astype(np.float32),
        "state": state,
        "output": poisoned(9 * 96),
    }
    spec = image_rows("rows under test", 96, 9, 8)
    expected, found = expected_and_found(run_kernel, spec, inputs, 7)["output"]
    assert (expected.view(np.uint32) == found.view(np.uint32)).all()


@pytest.mark.parametrize("window", [None, 5, 40])
@pytest.mark.parametrize("position", [0, 6])
def test_images_see_all_of_themselves(
    run_kernel: RunKernel, prefill_tuning: Tuning, window: int | None, position: int
) -> None:
    chunk, image = 70, 9
    shape = AttentionShape(
        n_heads=4,
        n_kv_heads=2,
        head_dim=32,
        context=128,
        window=None if window is None else SlidingWindow.for_chunks(window, 0, chunk),
        image_tokens=image,
    )
    rng = np.random.default_rng(11)
    state = np.zeros(state_words(chunk), np.uint32)
    state[:2] = position, 67
    # Two images side by side, and one on the border of a workgroup.
    for first, row in ((3, 0), (12, 9), (58, 27)):
        state[STATE_IMAGES + first : STATE_IMAGES + first + image] = 1 + row + np.arange(image)
    qkv = rng.normal(0, 1, (chunk, 8 * 32)).astype(np.float32)
    cache = rng.normal(0, 1, shape.cache_bytes // 2).astype(np.float16)
    inputs = {
        "qkv": qkv,
        "rope": np.array(rope_table([0.1 * i for i in range(16)], 128)),
        "state": state,
        "k_cache": cache.view(np.uint32),
        "v_cache": cache[::-1].copy().view(np.uint32),
    }
    written = expected_and_found(run_kernel, rope_append("rope", shape, chunk), inputs, 67)
    inputs |= {name: written[name][0] for name in ("k_cache", "v_cache")}
    inputs["output"] = poisoned(chunk * 4 * 32)
    spec = attention_prefill("attention under test", shape, chunk, prefill_tuning)
    ours = expected_and_found(run_kernel, spec, inputs, 67)["output"]
    assert_close(ours, 1e-5)
    state[STATE_IMAGES:] = 0
    causal = expected_and_found(run_kernel, spec, inputs, 67)["output"][0]
    rows = [each.view(np.float32).reshape(chunk, -1)[:67] for each in (ours[0], causal)]
    changed = (rows[0] != rows[1]).any(axis=1)
    assert set(np.flatnonzero(changed)) == {
        first + i for first in (3, 12, 58) for i in range(image - 1)
    }
