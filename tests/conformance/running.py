"""Runs a fixture's model: prefill in chunks, then greedy decode, in NumPy or in the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from tests.conformance.fixtures import Fixture, write_model_folder
from tests.support.engine_worker import EngineWorker
from tests.support.numpy_device import NumpyDevice

Decoded = tuple[list[int], list[np.ndarray]]
"""The tokens that follow the prompt, as many as the fixture has, and the logits before each."""


async def load_on_numpy(
    folder: Path, fixture: Fixture, device: NumpyDevice, chat_opts: Mapping[str, Any] | None = None
) -> Decoder:
    """Return a fixture's model on a NumPy device."""
    write_model_folder(fixture, folder)
    source = FolderSource(folder)
    config = ChatConfig.from_json(await source.read_json(CHAT_CONFIG_FILE), chat_opts=chat_opts)
    return await load_model(device, source, config, lambda progress: None)


def decode_on_numpy(
    folder: Path, fixture: Fixture, chat_opts: Mapping[str, Any] | None = None
) -> Decoded:
    """Run a fixture's model on the kernels' NumPy references."""
    device = NumpyDevice()

    async def run() -> Decoded:
        model = await load_on_numpy(folder, fixture, device, chat_opts)
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

    decoded = asyncio.run(run())
    assert device.live_buffers == []
    return decoded


async def _decode_in_worker(
    files: dict[str, bytes],
    prompt: list[int],
    n_tokens: int,
    lanes: bool,
    chat_opts: dict[str, Any],
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
    config = ChatConfig.from_json(json.loads(files["mlc-chat-config.json"]), chat_opts=chat_opts)
    model = await load_model(device, Files(), config, lambda progress: None)
    try:
        model.start(SamplingParams(temperature=0))
        for start in range(0, len(prompt), model.prefill_chunk_size):
            await model.prefill(prompt[start : start + model.prefill_chunk_size])
        tokens, logits = [(await model.sample()).token_id], [(await model.read_logits()).tobytes()]
        while len(tokens) < n_tokens:
            tokens.append((await model.decode()).token_id)
            logits.append((await model.read_logits()).tobytes())
        return {"tokens": tokens, "logits": logits}
    finally:
        model.destroy()
        device.destroy()


def decode_in_worker(
    folder: Path,
    fixture: Fixture,
    worker: EngineWorker,
    chat_opts: Mapping[str, Any] | None = None,
    *,
    lanes: bool = True,
) -> Decoded:
    """Run a fixture's model in the browser; `lanes` uses subgroups if the adapter has them."""
    write_model_folder(fixture, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = worker.run(
        _decode_in_worker,
        files=files,
        prompt=fixture.prompt_ids,
        n_tokens=len(fixture.greedy_ids),
        lanes=lanes,
        chat_opts=dict(chat_opts or {}),
    )
    return result["tokens"], [np.frombuffer(row, np.float32) for row in result["logits"]]
