"""The encoder against transformers' BertModel and sentence-transformers' pooling, on tiny models.

The same run on the kernels' NumPy references in CPython, and on WebGPU in the browser. Everything
is f32 on the same stored weights, so only the order of summation differs: 5e-6 of the largest
value. The worst that was measured is 8e-7.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.config import ChatConfig
from py_engine.models.encoder_loader import load_embedder
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.encoder_fixtures import (
    POOLINGS,
    EncoderFixture,
    encoder_names,
    load_encoder_fixture,
    write_encoder_folder,
)
from tests.conftest import EngineWorker
from tests.support.numpy_device import NumpyDevice

TOLERANCE = 5e-6


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE, f"relative error {error:.1e}"


def embed_on_numpy(
    fixture: EncoderFixture, folder: Path, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the last hidden states and the vectors of a fixture's batch."""
    write_encoder_folder(fixture.case, folder)
    device = NumpyDevice()

    async def run() -> tuple[np.ndarray, np.ndarray]:
        source = FolderSource(folder)
        checkpoint = await open_checkpoint(source)
        config = ChatConfig.from_json(
            checkpoint.config_json, chat_opts={"max_batch_size": 8, **options}
        )
        model = await load_embedder(device, checkpoint, config, lambda progress: None)
        vectors = np.array(await model.embed(fixture.sequences))
        [x] = [b for b in device.buffers if b.label == "x" and b.data is not None]
        rows = x.view(np.float32).reshape(-1, model.hidden_size)[: sum(map(len, fixture.sequences))]
        hidden = rows.copy()
        model.destroy()
        return hidden, vectors

    found = asyncio.run(run())
    assert device.live_buffers == []
    return found


@pytest.mark.parametrize("name", encoder_names())
def test_encoder_on_numpy(name: str, tmp_path: Path) -> None:
    fixture = load_encoder_fixture(name)
    hidden, vectors = embed_on_numpy(fixture, tmp_path)
    assert_close(hidden, fixture.hidden_states)
    assert_close(vectors, fixture.vectors("cls", False))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_on_numpy(pooling: str, normalize: bool, tmp_path: Path) -> None:
    fixture = load_encoder_fixture("bert_odd_heads_q4f16")
    _, vectors = embed_on_numpy(fixture, tmp_path, pooling=pooling, normalize=normalize)
    assert_close(vectors, fixture.vectors(pooling, normalize))


async def _embed_in_worker(
    files: dict[str, bytes], batches: list, lanes: bool, options: dict[str, Any]
) -> list[bytes]:
    import json
    from dataclasses import replace

    import js

    from py_engine.config import ChatConfig
    from py_engine.gpu.adapter import request_device
    from py_engine.models.encoder_loader import load_embedder
    from py_engine.storage.source import FileInfo
    from py_engine.weights.checkpoint import open_checkpoint

    class Files:
        url, entry = "memory:/", ""

        async def list_files(self):
            return {path: FileInfo(len(data)) for path, data in files.items()}

        async def read_json(self, path):
            return json.loads(files[path])

        async def read_range(self, path, begin, end, on_bytes=None):
            data = js.Uint8Array.new(end - begin)
            data.assign(files[path][begin:end])
            return data.buffer

    device = await request_device()
    if not lanes:
        device.info = replace(device.info, subgroup_size_max=None)
    checkpoint = await open_checkpoint(Files())
    config = ChatConfig.from_json(checkpoint.config_json, chat_opts=options)
    model = await load_embedder(device, checkpoint, config, lambda progress: None)
    try:
        vectors = [vector for batch in batches for vector in await model.embed(batch)]
        return [vector.tobytes() for vector in vectors]
    finally:
        model.destroy()
        device.destroy()


def embed_on_webgpu(
    worker: EngineWorker,
    fixture: EncoderFixture,
    folder: Path,
    batches: list[list[list[int]]],
    *,
    lanes: bool = True,
    **options: Any,
) -> np.ndarray:
    """Return the vectors of batches; `lanes` uses subgroups if the adapter has them."""
    write_encoder_folder(fixture.case, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    rows = worker.run(_embed_in_worker, files=files, batches=batches, lanes=lanes, options=options)
    return np.array([np.frombuffer(row, np.float32) for row in rows])


@pytest.mark.parametrize("name", encoder_names())
def test_encoder_on_webgpu(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_encoder_fixture(name)
    found = embed_on_webgpu(engine_worker, fixture, tmp_path, [fixture.sequences], pooling="mean")
    assert_close(found, fixture.vectors("mean", False))


@pytest.mark.parametrize("name", ["bert_one_layer_q0f16", "bert_odd_heads_q4f16"])
def test_encoder_without_subgroups(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_encoder_fixture(name)
    found = embed_on_webgpu(
        engine_worker, fixture, tmp_path, [fixture.sequences], lanes=False, pooling="mean"
    )
    assert_close(found, fixture.vectors("mean", False))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_on_webgpu(
    pooling: str, normalize: bool, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    fixture = load_encoder_fixture("bert_text_q4f16")
    found = embed_on_webgpu(
        engine_worker,
        fixture,
        tmp_path,
        [fixture.sequences],
        pooling=pooling,
        normalize=normalize,
    )
    assert_close(found, fixture.vectors(pooling, normalize))


def test_a_batch_equals_single_runs(tmp_path: Path, engine_worker: EngineWorker) -> None:
    """Packing sequences together changes no bit of their vectors."""
    fixture = load_encoder_fixture("bert_arctic_shape_q0f32")
    n, single = len(fixture.sequences), [[ids] for ids in fixture.sequences]
    found = embed_on_webgpu(
        engine_worker, fixture, tmp_path, [fixture.sequences, *single, fixture.sequences[::-1]]
    )
    np.testing.assert_array_equal(found[n : 2 * n], found[:n])
    np.testing.assert_array_equal(found[2 * n :], found[:n][::-1])
