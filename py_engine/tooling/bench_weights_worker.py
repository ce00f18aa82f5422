"""The part of `bench_weights.py` that runs inside the worker, next to the engine."""

from __future__ import annotations

import json
import time

from py_engine.gpu.adapter import request_device
from py_engine.gpu.types import Device
from py_engine.storage.fetch_browser import FetchSource
from py_engine.storage.platform_browser import open_storage
from py_engine.storage.source import ModelSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.loader import load_weights
from py_engine.weights.parameters import MatrixParameter, named
from py_engine.weights.plan import WeightPlan, plan_weights
from py_engine.weights.reads import OF_REMOTE


async def plain_s(device: Device, source: ModelSource, plan: WeightPlan) -> float:
    """Time reading all bytes, one piece after the other, each into a buffer with `writeBuffer`."""
    nbytes = OF_REMOTE.nbytes
    buffers = [device.create_buffer(nbytes, "plain") for _ in range(4)]
    started, number = time.perf_counter(), 0
    for path, size in plan.files.items():
        for begin in range(0, size, nbytes):
            data = await source.read_range(path, begin, min(begin + nbytes, size))
            device.write_buffer(buffers[number % len(buffers)], 0, data)
            number += 1
    await device.synchronize()
    seconds = time.perf_counter() - started
    for buffer in buffers:
        buffer.destroy()
    return seconds


async def loading_s(device: Device, source: ModelSource, plan: WeightPlan) -> float:
    """Time loading the weights as a model's."""
    started = time.perf_counter()
    buffers = await load_weights(device, source, plan, lambda done, total: None)
    seconds = time.perf_counter() - started
    for buffer in buffers.values():
        buffer.destroy()
    return seconds


async def measure_weights(url: str, n_matrices: int, rows: int, columns: int, runs: int) -> str:
    """Download the weights at `url` into OPFS, and time them on their way from there."""
    device = await request_device()
    storage = await open_storage("opfs")
    source = storage.open(FetchSource(url))
    checkpoint = await open_checkpoint(source)
    parameters = [MatrixParameter(f"m{index}", (rows,), columns) for index in range(n_matrices)]
    names = {parameter.role: named(parameter.role) for parameter in parameters}
    plan = plan_weights(checkpoint, parameters, names, device.limits)
    download = getattr(source, "download", None)
    if download is not None:
        await download(list(plan.files))
    plain, loading = [], []
    for _ in range(runs):
        plain.append(await plain_s(device, source, plan))
        loading.append(await loading_s(device, source, plan))
    await storage.delete(source.url)
    device.destroy()
    figures = {
        "weights_bytes_per_s": plan.download_bytes / min(loading),
        "weights_plain_bytes_per_s": plan.download_bytes / min(plain),
        "weights_ratio": min(plain) / min(loading),
    }
    return json.dumps(figures)
