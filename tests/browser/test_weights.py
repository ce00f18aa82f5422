"""Weights from a server onto a real WebGPU device: exact values, and no bytes in the wasm heap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.weights.mlc_writer import write_tensors
from py_engine.weights.quantization import (
    StoredTensor,
    bf16_from_f32,
    f32_from_bf16,
    stored_floats,
)
from tests.support.engine_worker import EngineWorker
from tests.support.file_server import file_server

RANDOM = np.random.default_rng(7)


async def load_and_read(url: str, slots: list[list[Any]]) -> dict[str, bytes]:
    from py_engine.gpu.adapter import request_device
    from py_engine.storage.fetch_browser import FetchSource
    from py_engine.weights.loader import load_weights
    from py_engine.weights.plan import WeightSlot

    device = await request_device()
    try:
        wanted = [WeightSlot(name, tuple(shape), layout) for name, shape, layout in slots]
        buffers = await load_weights(device, FetchSource(url), wanted, lambda done, total: None)
        return {name: await device.read_buffer(buffer) for name, buffer in buffers.items()}
    finally:
        device.destroy()


async def heap_growth(url: str, name: str, size: int) -> int:
    from pyodide_js import _module

    from py_engine.gpu.adapter import request_device
    from py_engine.storage.fetch_browser import FetchSource
    from py_engine.weights.loader import load_weights
    from py_engine.weights.plan import WeightSlot

    device = await request_device()
    try:
        before = _module.HEAPU8.length
        slots = [WeightSlot(name, (size,), "f32")]
        await load_weights(device, FetchSource(url), slots, lambda done, total: None)
        return _module.HEAPU8.length - before
    finally:
        device.destroy()


def files_of(folder: Path, tensors: list[StoredTensor]) -> dict[str, bytes]:
    """Return the files of an MLC model that consists of `tensors`."""
    write_tensors(folder, tensors, n_weights=1, shard_bytes=100_000)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Odd sizes end within a u32 and make the next tensor start within one.
@pytest.mark.parametrize("size", [1, 2, 3, 511, 513, 66_001])
def test_every_layout_is_exact(engine_worker: EngineWorker, tmp_path: Path, size: int) -> None:
    values = (RANDOM.standard_normal(size) * 10.0 ** RANDOM.integers(-6, 4, size)).astype("f4")
    words = RANDOM.integers(0, 2**32, size, np.uint32)
    stored = [
        stored_floats("halfs", values, "q0f16"),
        stored_floats("halfs kept", values, "q0f16"),
        stored_floats("bf16", values, "q0f32"),
        StoredTensor("words", "uint32", "raw", words),
        StoredTensor("singles", "float32", "raw", values),
    ]
    slots = [
        ["halfs", [size], "f32"],
        ["halfs kept", [size], "f16"],
        ["bf16", [size], "f32"],
        ["words", [size], "u32"],
        ["singles", [size], "f32"],
    ]
    with file_server(files_of(tmp_path, stored)) as server:
        found = engine_worker.run(load_and_read, url=server.url, slots=slots)
    halfs = values.astype(np.float16)
    expected: dict[str, Any] = {
        "halfs": halfs.astype(np.float32),
        "halfs kept": halfs,
        "bf16": f32_from_bf16(bf16_from_f32(values)),
        "words": words,
        "singles": values,
    }
    for name, array in expected.items():
        got = np.frombuffer(found[name], array.dtype)[:size]
        # A GPU may flush subnormal numbers to zero.
        normal = array if name == "words" else np.where(np.abs(array) < 2.0**-14, 0, array)
        kept = got if name == "words" else np.where(np.abs(got) < 2.0**-14, 0, got)
        np.testing.assert_array_equal(kept, normal, err_msg=name)


def test_wasm_heap_does_not_hold_the_weights(engine_worker: EngineWorker, tmp_path: Path) -> None:
    size = 12_000_000
    values = StoredTensor("big", "float32", "f32-to-bf16", np.ones(size, np.uint16))
    with file_server(files_of(tmp_path, [values])) as server:
        grown = engine_worker.run(heap_growth, url=server.url, name="big", size=size)
    assert grown < 2_000_000


def test_truncated_shard_names_its_address(engine_worker: EngineWorker, tmp_path: Path) -> None:
    async def failure(url: str) -> str:
        from py_engine.gpu.adapter import request_device
        from py_engine.storage.fetch_browser import FetchSource
        from py_engine.weights.loader import load_weights
        from py_engine.weights.plan import WeightSlot

        device = await request_device()
        try:
            slots = [WeightSlot("a", (100,), "f16")]
            await load_weights(device, FetchSource(url), slots, lambda done, total: None)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            device.destroy()
        return "loaded"

    files = files_of(tmp_path, [stored_floats("a", np.ones(100, np.float32), "q0f16")])
    files["params_shard_0.bin"] = files["params_shard_0.bin"][:-4]
    assert json.loads(files["tensor-cache.json"])["records"][0]["nbytes"] == 200
    with file_server(files) as server:
        wanted = (
            f"TruncatedFileError: {server.url}/params_shard_0.bin has 196 bytes, but "
            "tensor-cache.json says 200. Download the file again."
        )
        assert engine_worker.run(failure, url=server.url) == wanted
