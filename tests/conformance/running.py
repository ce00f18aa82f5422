"""Runs a fixture's model: prefill in chunks, then greedy decode, in NumPy or in the browser."""

from __future__ import annotations

import asyncio
import inspect
from array import array
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from py_engine.config import ChatConfig
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.quantization import F32
from tests.conformance.fixtures import Fixture, write_model_folder
from tests.support.engine_worker import EngineWorker
from tests.support.numpy_device import NumpyDevice


@dataclass(frozen=True)
class Decoded:
    """What a model gave: the tokens after the prompt, as many as the fixture has.

    `logits` are those before each of them, `prefix_logits` those after the fixture's beginnings of
    the prompt, each in a sequence of its own.
    """

    tokens: list[int]
    logits: list[F32]
    prefix_logits: list[F32]


async def drive(
    model: Any, prompt: list[int], n_tokens: int, prefix_lengths: list[int]
) -> dict[str, Any]:
    """Run a model; this runs in the worker too, so it imports what it needs."""
    from py_engine.models.base import SamplingParams

    async def prefill(token_ids: list[int]) -> None:
        model.start(SamplingParams(temperature=0))
        for start in range(0, len(token_ids), model.prefill_chunk_size):
            await model.prefill(token_ids[start : start + model.prefill_chunk_size])

    async def logits() -> bytes:
        return (await model.read_logits()).tobytes()

    prefix_logits = []
    for length in prefix_lengths:
        await prefill(prompt[:length])
        model.first_logits()
        prefix_logits.append(await logits())
    await prefill(prompt)
    tokens, rows = [(await model.sample()).token_id], [await logits()]
    while len(tokens) < n_tokens:
        await model.reserve(1)
        tokens.append((await model.decode()).token_id)
        rows.append(await logits())
    return {"tokens": tokens, "logits": rows, "prefix_logits": prefix_logits}


def decoded(found: Mapping[str, Any]) -> Decoded:
    """Return what `drive` found, with arrays."""

    def arrays(rows: list[bytes]) -> list[F32]:
        return [np.frombuffer(row, np.float32) for row in rows]

    return Decoded(found["tokens"], arrays(found["logits"]), arrays(found["prefix_logits"]))


def logits_after(model: Decoder, fixture: Fixture) -> array[float]:
    """Return the logits after a chunk of a fixture's prompt and a token, in a new sequence."""

    async def run() -> array[float]:
        model.start(SamplingParams(temperature=0))
        await model.prefill(fixture.prompt_ids[:9])
        await model.sample()
        await model.decode()
        return await model.read_logits()

    return asyncio.run(run())


async def load_on_numpy(
    folder: Path, fixture: Fixture, device: NumpyDevice, chat_opts: Mapping[str, Any] | None = None
) -> Decoder:
    """Return a fixture's model, of MLC's files, on a NumPy device."""
    write_model_folder(fixture, folder)
    return await load_folder_on_numpy(folder, device, chat_opts)


async def load_folder_on_numpy(
    folder: Path,
    device: NumpyDevice,
    chat_opts: Mapping[str, Any] | None = None,
    *,
    takes_images: bool = False,
) -> Decoder:
    """Return the model in `folder` on a NumPy device."""
    checkpoint = await open_checkpoint(FolderSource(folder))
    config = ChatConfig.from_json(checkpoint.config_json, chat_opts=chat_opts)
    return await load_model(
        device, checkpoint, config, lambda progress: None, takes_images=takes_images
    )


def decode_on_numpy(
    folder: Path, fixture: Fixture, chat_opts: Mapping[str, Any] | None = None
) -> Decoded:
    """Run a fixture's model, of MLC's files, on the kernels' NumPy references."""
    write_model_folder(fixture, folder)
    return decode_folder_on_numpy(folder, fixture, chat_opts)


def decode_folder_on_numpy(
    folder: Path, fixture: Fixture, chat_opts: Mapping[str, Any] | None = None
) -> Decoded:
    """Run the model in `folder`, which is a fixture's, on the kernels' NumPy references."""
    return decoded(drive_on_numpy(drive, folder, fixture, chat_opts))


def drive_on_numpy(
    drive: Drive, folder: Path, fixture: Fixture, chat_opts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what `drive` finds with the model in `folder`, which leaves nothing on the device."""
    device = NumpyDevice()

    async def run() -> dict[str, Any]:
        model = await load_folder_on_numpy(folder, device, chat_opts)
        prompt, n_tokens = fixture.prompt_ids, len(fixture.greedy_ids)
        found = await drive(model, prompt, n_tokens, fixture.prefix_lengths)
        model.destroy()
        return found

    found = asyncio.run(run())
    assert device.live_buffers == []
    return found


async def _run_in_worker(
    files: dict[str, bytes],
    prompt: list[int],
    n_tokens: int,
    prefix_lengths: list[int],
    lanes: bool,
    chat_opts: dict[str, Any],
) -> dict[str, Any]:
    import json
    from dataclasses import replace

    import js

    from py_engine.config import ChatConfig
    from py_engine.gpu.adapter import request_device
    from py_engine.models.loader import load_model
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
    config = ChatConfig.from_json(checkpoint.config_json, chat_opts=chat_opts)
    model = await load_model(device, checkpoint, config, lambda progress: None)
    await model.reserve(1)  # after which all kernels are compiled
    try:
        return await drive(model, prompt, n_tokens, prefix_lengths)
    finally:
        model.destroy()
        device.destroy()


Drive = Callable[[Any, list[int], int, list[int]], Awaitable[dict[str, Any]]]
"""A function like `drive` and of its name, of whose module a worker knows nothing."""


def _worker_code(drive: Drive) -> str:
    return "\n".join(
        [
            "from __future__ import annotations",
            "from typing import Any",
            inspect.getsource(drive),
            inspect.getsource(_run_in_worker),
            "await _run_in_worker(files, prompt, n_tokens, prefix_lengths, lanes, chat_opts)",
        ]
    )


def decode_in_worker(
    folder: Path,
    fixture: Fixture,
    worker: EngineWorker,
    chat_opts: Mapping[str, Any] | None = None,
    *,
    lanes: bool = True,
) -> Decoded:
    """Run a fixture's model, of MLC's files, in the browser.

    `lanes` uses subgroups if the adapter has them.
    """
    write_model_folder(fixture, folder)
    return decode_folder_in_worker(folder, fixture, worker, chat_opts, lanes=lanes)


def decode_folder_in_worker(
    folder: Path,
    fixture: Fixture,
    worker: EngineWorker,
    chat_opts: Mapping[str, Any] | None = None,
    *,
    lanes: bool = True,
) -> Decoded:
    """Run the model in `folder`, which is a fixture's, in the browser."""
    return decoded(drive_in_worker(drive, folder, fixture, worker, chat_opts, lanes=lanes))


def drive_in_worker(
    drive: Drive,
    folder: Path,
    fixture: Fixture,
    worker: EngineWorker,
    chat_opts: Mapping[str, Any] | None = None,
    *,
    lanes: bool = True,
) -> dict[str, Any]:
    """Return what a function finds that drives a fixture's model, in `folder`, in the browser."""
    found: dict[str, Any] = worker.run(
        _worker_code(drive),
        files={path.name: path.read_bytes() for path in folder.iterdir()},
        prompt=fixture.prompt_ids,
        n_tokens=len(fixture.greedy_ids),
        prefix_lengths=fixture.prefix_lengths,
        lanes=lanes,
        chat_opts=dict(chat_opts or {}),
    )
    return found
