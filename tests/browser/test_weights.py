"""Weights from a server onto a real WebGPU device: exact values, and no bytes in the wasm heap."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.weights.quantization import bf16_from_f32, f32_from_bf16, quantize
from tests.support.engine_worker import EngineWorker
from tests.support.file_server import file_server
from tests.support.safetensors_file import write_safetensors

RANDOM = np.random.default_rng(7)


async def load_and_read(
    url: str, matrices: list[list[Any]], vectors: list[list[Any]], quantization: str | None
) -> dict[str, Any]:
    """Load matrices and vectors of a Hugging Face folder; return their buffers, heap and error."""
    from pyodide_js import _module

    from py_engine.errors import MLCError
    from py_engine.gpu.adapter import request_device
    from py_engine.storage.fetch_browser import FetchSource
    from py_engine.weights.checkpoint import open_checkpoint
    from py_engine.weights.loader import load_weights
    from py_engine.weights.parameters import MatrixParameter, VectorParameter, named
    from py_engine.weights.plan import plan_weights

    device = await request_device()
    try:
        checkpoint = await open_checkpoint(FetchSource(url))
        parameters = [
            *(MatrixParameter(role, tuple(blocks), columns) for role, blocks, columns in matrices),
            *(VectorParameter(role, (size,)) for role, size in vectors),
        ]
        names = {
            **{role: named(*role.split("+")) for role, _, _ in matrices},
            **{role: named(role) for role, _ in vectors},
        }
        plan = plan_weights(checkpoint, parameters, names, device.limits, quantization)
        before = _module.HEAPU8.length
        buffers = await load_weights(device, checkpoint.source, plan, lambda done, total: None)
        grown = _module.HEAPU8.length - before
        if grown > 2_000_000:
            return {"grown": grown}
        return {name: await device.read_buffer(buffer) for name, buffer in buffers.items()}
    except MLCError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        device.destroy()


def files_of(folder: Path, tensors: Mapping[str, np.ndarray], dtype: str) -> dict[str, bytes]:
    """Return the files of a Hugging Face model that consists of `tensors`."""
    write_safetensors(folder / "model.safetensors", tensors, dtype)
    config = {"model_type": "llama", "vocab_size": 7, "max_position_embeddings": 7}
    (folder / "config.json").write_text(json.dumps(config))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def random_values(*shape: int) -> np.ndarray:
    """Return values of many magnitudes, which bf16 holds exactly."""
    scale = 10.0 ** RANDOM.integers(-3, 3, shape)
    return f32_from_bf16(bf16_from_f32((RANDOM.standard_normal(shape) * scale).astype("f4")))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_type_is_exact(engine_worker: EngineWorker, tmp_path: Path, dtype: str) -> None:
    # An odd vector ends within a u32 and makes the next tensor begin within one.
    sizes = (1, 3, 513, 66_001)
    tensors = {f"v{size}": random_values(size) for size in sizes}
    tensors |= {"a.weight": random_values(33, 64), "b.weight": random_values(5, 64)}
    with file_server(files_of(tmp_path, tensors, dtype)) as server:
        found = engine_worker.run(
            load_and_read,
            url=server.url,
            matrices=[["a+b", [33, 5], 64]],
            vectors=[[f"v{size}", size] for size in sizes],
            quantization=None,
        )
    stored = {"F32": lambda a: a, "F16": lambda a: a.astype("f2"), "BF16": bf16_from_f32}[dtype]
    matrix = stored(np.concatenate([tensors["a.weight"], tensors["b.weight"]]))
    got = np.frombuffer(found["a+b.0.weights"], matrix.dtype)[: matrix.size]
    np.testing.assert_array_equal(got, matrix.ravel())
    for size in sizes:
        vector = tensors[f"v{size}"]
        expected = vector.astype("f2").astype("f4") if dtype == "F16" else vector
        np.testing.assert_array_equal(np.frombuffer(found[f"v{size}"], "f4")[:size], expected)


@pytest.mark.parametrize("quantization", ["q4f16_1", "q4f32_1"])
def test_quantised_on_the_gpu_as_in_numpy(
    engine_worker: EngineWorker, tmp_path: Path, quantization: Any
) -> None:
    tensors = {"a.weight": random_values(131, 96), "b.weight": random_values(64, 96)}
    with file_server(files_of(tmp_path, tensors, "BF16")) as server:
        found = engine_worker.run(
            load_and_read,
            url=server.url,
            matrices=[["a+b", [131, 64], 96]],
            vectors=[],
            quantization=quantization,
        )
    words, scales = quantize(np.concatenate(list(tensors.values())), quantization)
    stored = scales.astype("f2" if quantization == "q4f16_1" else "f4").ravel()
    for name, expected in (("weights", words.ravel()), ("scales", stored)):
        got = np.frombuffer(found[f"a+b.0.{name}"], expected.dtype)[: expected.size]
        np.testing.assert_array_equal(got, expected)


def test_wasm_heap_does_not_hold_the_weights(engine_worker: EngineWorker, tmp_path: Path) -> None:
    tensors = {"big.weight": np.ones((12_000, 1024), np.float32)}
    with file_server(files_of(tmp_path, tensors, "BF16")) as server:
        found = engine_worker.run(
            load_and_read,
            url=server.url,
            matrices=[["big", [12_000], 1024]],
            vectors=[],
            quantization="q4f16_1",
        )
    assert len(found["big.0.weights"]) == 12_000 * 512


def test_truncated_file_names_its_address(engine_worker: EngineWorker, tmp_path: Path) -> None:
    files = files_of(tmp_path, {"a.weight": random_values(10, 32)}, "F16")
    files["model.safetensors"] = files["model.safetensors"][:-4]
    with file_server(files) as server:
        found = engine_worker.run(
            load_and_read,
            url=server.url,
            matrices=[["a", [10], 32]],
            vectors=[],
            quantization=None,
        )
        expected = f"TruncatedFileError: {server.url}/model.safetensors has "
        assert found["error"].startswith(expected)
