"""Gemma 3 with images against transformers: pixels, the tower's rows, logits, greedy tokens.

Images are resized by PIL there, with the filter that transformers' image processor asks for.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.kernels.reference import REFERENCES
from py_engine.kernels.vision import patches, resize_rows
from tests.conformance.running import load_folder_on_numpy
from tests.conformance.vision_recipe import (
    BEGIN,
    CASES,
    END,
    SIZES,
    VisionCase,
    VisionFixture,
    host_image,
    load_vision_fixture,
    make_pixels,
    write_vision_folder,
)
from tests.conftest import EngineWorker
from tests.support.numpy_device import NumpyDevice

TOLERANCE = 4e-3
"""Of the largest logit: our KV cache is f16, theirs f32."""

ROWS_TOLERANCE = 5e-3
"""Of the largest value: all is f32, but one pixel in 300 is rounded to the next of 255 steps."""

N_GREEDY = 8


async def drive_with_images(
    model: Any, device: Any, parts: list[Any], images: list[Any], n_greedy: int
) -> dict[str, Any]:
    """Run a model; this runs in the worker too, so it imports what it needs.

    `parts` are a prompt's ids of text, and for an image its number in `images`.
    """
    from py_engine.models.base import SamplingParams

    held = [model.vision.hold(image) for image in images]
    ids: list[int] = []
    for part in parts:
        ids += held[part].ids if isinstance(part, int) else part
    model.start(SamplingParams(temperature=0))
    begin, n_chunks = 0, 0
    while begin < len(ids):
        end = min(begin + model.prefill_chunk_size, len(ids))
        while end < len(ids) and model.vision.is_within_image(ids, end):
            end -= 1
        await model.prefill(ids[begin:end])
        begin, n_chunks = end, n_chunks + 1
    tokens, logits = [(await model.sample()).token_id], [(await model.read_logits()).tobytes()]
    while len(tokens) < n_greedy:
        await model.reserve(1)
        tokens.append((await model.decode()).token_id)
        logits.append((await model.read_logits()).tobytes())
    rows = await device.read_buffer(model._buffers["images"])
    return {
        "tokens": tokens,
        "logits": logits,
        "rows": bytes(rows),
        "n_encoded": model.vision.n_encoded,
        "n_chunks": n_chunks,
    }


def parts_of(case: VisionCase) -> list[Any]:
    """Return a case's prompt for `drive_with_images`."""
    numbers = iter(case.images)
    parts: list[Any] = []
    for part in case.parts:
        parts += [[BEGIN], next(numbers), [END]] if part is None else [list(part)]
    return parts


@pytest.fixture(scope="module")
def fixture() -> VisionFixture:
    return load_vision_fixture()


@pytest.fixture(scope="module")
def folder(fixture: VisionFixture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gemma3_vision")
    write_vision_folder(fixture, path)
    return path


def run_on_numpy(folder: Path, case: VisionCase, chunk: int) -> dict[str, Any]:
    device = NumpyDevice()

    async def run() -> dict[str, Any]:
        opts = {"prefill_chunk_size": chunk}
        model = await load_folder_on_numpy(folder, device, opts, takes_images=True)
        images = [host_image(pixels) for pixels in make_pixels()]
        found = await drive_with_images(model, device, parts_of(case), images, N_GREEDY)
        model.destroy()
        return found

    found = asyncio.run(run())
    assert device.live_buffers == []
    return found


def assert_agrees(fixture: VisionFixture, case: VisionCase, found: dict[str, Any]) -> None:
    numbers = list(dict.fromkeys(case.images))
    assert found["n_encoded"] == len(numbers), "the same image is encoded once"
    rows = np.frombuffer(found["rows"], np.float32).reshape(-1, *fixture.rows.shape[1:])
    expected_rows = fixture.rows[numbers]
    error = np.abs(rows[: len(numbers)] - expected_rows).max() / np.abs(expected_rows).max()
    assert error <= ROWS_TOLERANCE, f"rows: {error:.1e}"
    logits = np.stack([np.frombuffer(row, np.float32) for row in found["logits"]])
    expected = fixture.logits[case.name]
    error = (np.abs(logits - expected).max(axis=1) / np.abs(expected).max(axis=1)).max()
    assert error <= TOLERANCE, f"logits: {error:.1e}"
    assert found["tokens"] == fixture.greedy[case.name]


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_pixels_as_pil(fixture: VisionFixture, number: int) -> None:
    """A value that lies between two steps may be rounded to either; PIL computes with integers."""
    image = host_image(make_pixels()[number])
    size, patch, side, columns = 48, 6, 8, 128
    buffers: dict[str, Any] = {
        "image": np.array([image.width, image.height, 0, 0], np.uint32),
        "pixels": np.frombuffer(image.pixels, np.uint32),
        "output": np.zeros(size * image.height, np.uint32),
    }
    shrink = resize_rows("rows", size, "bilinear")
    REFERENCES[shrink.name](shrink.constants, image.height, buffers)
    buffers |= {
        "pixels": buffers["output"],
        "output": np.zeros(side * side * columns, np.float32),
    }
    half = (0.5, 0.5, 0.5)
    cut = patches("patches", size, "bilinear", patch, columns, rescale=1 / 255, mean=half, std=half)
    REFERENCES[cut.name](cut.constants, size, buffers)
    rows = buffers["output"].reshape(side, side, columns)[..., : 3 * patch * patch]
    ours = rows.reshape(side, side, 3, patch, patch).transpose(2, 0, 3, 1, 4)
    steps = np.abs(ours.reshape(3, size, size) - fixture.pixel_values[number]) * 255 / 2
    assert steps.max() < 1.01
    assert (steps > 0.5).mean() < 5e-3


@pytest.mark.parametrize("chunk", [128, 20])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_numpy_as_transformers(
    folder: Path, fixture: VisionFixture, case: VisionCase, chunk: int
) -> None:
    found = run_on_numpy(folder, case, chunk)
    assert (found["n_chunks"] > 1) == (chunk == 20)
    assert_agrees(fixture, case, found)


def test_16_bit_files_agree_within_their_rounding(fixture: VisionFixture, tmp_path: Path) -> None:
    write_vision_folder(fixture, tmp_path, dtype="F16")
    found = run_on_numpy(tmp_path, CASES[0], 64)
    rows = np.frombuffer(found["rows"], np.float32).reshape(-1, *fixture.rows.shape[1:])
    assert np.abs(rows[0] - fixture.rows[0]).max() <= 1e-2 * np.abs(fixture.rows[0]).max()


def test_a_model_without_images_needs_no_tower(folder: Path) -> None:
    device = NumpyDevice()
    model = asyncio.run(load_folder_on_numpy(folder, device))
    assert model.vision is None
    assert not [name for name in device.live_buffers if name.startswith("vision")]
    model.destroy()


async def _run_in_worker(
    files: dict[str, bytes], parts: list[Any], images: list[Any], n_greedy: int, chunk: int
) -> dict[str, Any]:
    from py_engine.config import ChatConfig
    from py_engine.gpu.adapter import request_device
    from py_engine.models.images import HostImage
    from py_engine.models.loader import load_model
    from py_engine.weights.checkpoint import open_checkpoint

    device = await request_device()
    checkpoint = await open_checkpoint(Files(files))  # noqa: F821  defined in _FILES
    config = ChatConfig.from_json(checkpoint.config_json, chat_opts={"prefill_chunk_size": chunk})
    model = await load_model(device, checkpoint, config, lambda progress: None, takes_images=True)
    await model.reserve(1)  # after which all kernels are compiled
    try:
        return await drive_with_images(
            model, device, parts, [HostImage(*image) for image in images], n_greedy
        )
    finally:
        model.destroy()
        device.destroy()


_FILES = """
import json, js
from py_engine.storage.source import FileInfo
from py_engine.errors import MissingFileError

class Files:
    url, entry = "memory:/", ""

    def __init__(self, files):
        self.files = files

    async def list_files(self):
        return {path: FileInfo(len(data)) for path, data in self.files.items()}

    async def read_json(self, path):
        if path not in self.files:
            raise MissingFileError(path)
        return json.loads(self.files[path])

    async def read_range(self, path, begin, end, on_bytes=None):
        data = js.Uint8Array.new(end - begin)
        data.assign(self.files[path][begin:end])
        return data.buffer
"""

_WORKER_CODE = "\n".join(
    [
        "from __future__ import annotations",
        "from typing import Any",
        _FILES,
        inspect.getsource(drive_with_images),
        inspect.getsource(_run_in_worker),
        "await _run_in_worker(files, parts, images, n_greedy, chunk)",
    ]
)


def test_webgpu_as_transformers(
    engine_worker: EngineWorker, folder: Path, fixture: VisionFixture
) -> None:
    case = CASES[1]
    images = [host_image(pixels) for pixels in make_pixels()]
    found = engine_worker.run(
        _WORKER_CODE,
        files={path.name: path.read_bytes() for path in folder.iterdir()},
        parts=parts_of(case),
        images=[[i.width, i.height, i.pixels, i.digest] for i in images],
        n_greedy=N_GREEDY,
        chunk=20,
    )
    assert_agrees(fixture, case, found)
