"""The decoder against transformers: prefill in chunks, then greedy decode, on tiny random Llamas.

The same run on the kernels' NumPy references in CPython, and on WebGPU in the browser. Greedy
tokens must be identical. Logits: 5e-3 of the largest one, which the KV cache in f16 accounts for
(2^-11 relative on every key and value); transformers keeps it in f32.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.models.base import SamplingParams
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from tests.conformance.fixtures import Fixture, fixture_names, load_fixture, write_model_folder
from tests.conftest import EngineWorker
from tests.support.numpy_device import NumpyDevice

TOLERANCE = 5e-3


def assert_agrees(fixture: Fixture, token_ids: list[int], logits: list[np.ndarray]) -> None:
    """Compare greedy tokens, and the logits that each was drawn from."""
    assert token_ids == fixture.greedy_ids
    for step, found in enumerate(logits):
        expected = fixture.logits_at(len(fixture.prompt_ids) - 1 + step)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE, f"step {step}: relative error {error:.1e}"


@pytest.mark.parametrize("name", fixture_names())
def test_decoder_on_numpy(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    write_model_folder(fixture, tmp_path)
    device = NumpyDevice()

    async def run() -> tuple[list[int], list[np.ndarray]]:
        source = FolderSource(tmp_path)
        config = ChatConfig.from_json(await source.read_json(CHAT_CONFIG_FILE))
        model = await load_model(device, source, config, lambda progress: None)
        model.start(SamplingParams(temperature=0))
        prompt = fixture.prompt_ids
        for start in range(0, len(prompt), model.prefill_chunk_size):
            await model.prefill(prompt[start : start + model.prefill_chunk_size])
        tokens, logits = [(await model.sample()).token_id], [np.array(await model.read_logits())]
        while len(tokens) < len(fixture.greedy_ids):
            tokens.append((await model.decode()).token_id)
            logits.append(np.array(await model.read_logits()))
        model.destroy()
        return tokens, logits

    assert_agrees(fixture, *asyncio.run(run()))
    assert device.live_buffers == []


async def _decode_in_worker(
    files: dict[str, bytes], prompt: list[int], n_tokens: int, lanes: bool, chunk: int
) -> dict[str, Any]:
    import json
    from dataclasses import replace

    import js

    from py_engine.config import ChatConfig
    from py_engine.gpu.adapter import request_device
    from py_engine.models.base import SamplingParams
    from py_engine.models.loader import load_model

    class Files:
        url = "memory:/"

        async def read_json(self, path):
            return json.loads(files[path])

        async def read_bytes(self, path, on_bytes=None):
            data = js.Uint8Array.new(len(files[path]))
            data.assign(files[path])
            return data.buffer

    device = await request_device()
    if not lanes:
        device.info = replace(device.info, subgroup_size_max=None)
    config = ChatConfig.from_json(
        json.loads(files["mlc-chat-config.json"]), chat_opts={"prefill_chunk_size": chunk}
    )
    model = await load_model(device, Files(), config, lambda progress: None)
    try:
        model.start(SamplingParams(temperature=0))
        for start in range(0, len(prompt), chunk):
            await model.prefill(prompt[start : start + chunk])
        tokens, logits = [(await model.sample()).token_id], [(await model.read_logits()).tobytes()]
        while len(tokens) < n_tokens:
            tokens.append((await model.decode()).token_id)
            logits.append((await model.read_logits()).tobytes())
        return {"tokens": tokens, "logits": logits}
    finally:
        model.destroy()
        device.destroy()


def decode_in_worker(
    worker: EngineWorker, folder: Path, fixture: Fixture, *, lanes: bool, chunk: int
) -> tuple[list[int], list[np.ndarray]]:
    """Run a fixture's model in the browser; `lanes` uses subgroups if the adapter has them."""
    write_model_folder(fixture, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = worker.run(
        _decode_in_worker,
        files=files,
        prompt=fixture.prompt_ids,
        n_tokens=len(fixture.greedy_ids),
        lanes=lanes,
        chunk=chunk,
    )
    return result["tokens"], [np.frombuffer(row, np.float32) for row in result["logits"]]


@pytest.mark.parametrize("name", fixture_names())
def test_decoder_on_webgpu(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture(name)
    assert_agrees(
        fixture, *decode_in_worker(engine_worker, tmp_path, fixture, lanes=True, chunk=32)
    )


@pytest.mark.parametrize("chunk", [1, 69, 70])
@pytest.mark.parametrize("name", ["gqa_tied_q4f16", "mistral_window_24_q0f32"])
def test_decoder_in_other_chunks(
    name: str, chunk: int, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    """Chunks of one token, a last chunk of one token, and a single chunk give the same."""
    fixture = load_fixture(name)
    assert_agrees(
        fixture, *decode_in_worker(engine_worker, tmp_path, fixture, lanes=True, chunk=chunk)
    )


def test_decoder_without_subgroups(tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture("gqa_tied_q4f16")
    assert_agrees(
        fixture, *decode_in_worker(engine_worker, tmp_path, fixture, lanes=False, chunk=32)
    )
