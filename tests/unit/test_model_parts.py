"""Weights and kernels of a model, loaded while its files are still on their way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.errors import ConversionError, NetworkError
from py_engine.models.base import LoadProgress
from py_engine.models.compiling import Kernels
from py_engine.models.parts import load_parts
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.parameters import VectorParameter, named
from py_engine.weights.plan import WeightPlan, plan_weights
from tests.support.numpy_device import NumpyDevice
from tests.support.safetensors_file import write_safetensors

CONFIG = '{"model_type": "llama", "vocab_size": 64, "max_position_embeddings": 64}'
NORM = np.arange(256, dtype=np.float32)


class Coming(FolderSource):
    """A source that downloads while it is read; what it gives `damaged` is found so at the end."""

    damaged = False
    is_refused = False
    failure: Exception | None = None
    reads = 0

    async def read_range(self, path: str, begin: int, end: int, on_bytes: Any = None) -> bytes:
        self.reads += 1
        data = await super().read_range(path, begin, end, on_bytes)
        if self.is_refused and (self.damaged or self.reads == 1):
            raise ConversionError("too large")  # as the kernels tell at the end
        return bytes(len(data)) if self.damaged else data

    async def download(self, paths: list[str], on_bytes: Any = None) -> bool:
        while not self.reads:
            await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        is_right, self.damaged = not self.damaged, False
        return is_right


async def planned(folder: Path) -> tuple[Coming, WeightPlan]:
    (folder / "config.json").write_text(CONFIG)
    write_safetensors(folder / "model.safetensors", {"norm.weight": NORM}, "F32")
    source = Coming(folder)
    device = NumpyDevice()
    parameters = (VectorParameter("final_norm", (len(NORM),)),)
    names = {"final_norm": named("norm.weight")}
    plan = plan_weights(await open_checkpoint(source), parameters, names, device.limits)
    source.reads = 0
    return source, plan


async def kernels(loading: asyncio.Future[Any]) -> tuple[str, Kernels]:
    return "plan", {}


@pytest.mark.parametrize(("damaged", "n_reads"), [(False, 1), (True, 2)])
def test_what_came_damaged_is_read_again(tmp_path: Path, damaged: bool, n_reads: int) -> None:
    seen: list[LoadProgress] = []

    async def run() -> None:
        source, plan = await planned(tmp_path)
        source.damaged = damaged
        device = NumpyDevice()
        weights, begun, _ = await load_parts(device, source, plan, kernels, seen.append)
        assert begun == "plan"
        assert source.reads == n_reads
        assert device.live_buffers == ["final_norm"]
        found: Any = weights["final_norm"]
        np.testing.assert_array_equal(found.view(np.float32), NORM)

    asyncio.run(run())
    assert (seen[-1].phase, seen[-1].done, seen[-1].total) == ("weights", NORM.nbytes, NORM.nbytes)


@pytest.mark.parametrize("damaged", [False, True])
def test_weights_that_do_not_fit_are_read_again_only_if_they_came_damaged(
    tmp_path: Path, damaged: bool
) -> None:
    async def run() -> int:
        source, plan = await planned(tmp_path)
        source.damaged, source.is_refused = damaged, True
        device = NumpyDevice()
        try:
            await load_parts(device, source, plan, kernels, lambda progress: None)
        except ConversionError:
            assert device.live_buffers == []
        return source.reads

    assert asyncio.run(run()) == (2 if damaged else 1)


def test_failed_download_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        source, plan = await planned(tmp_path)
        source.failure = NetworkError("the network is gone")
        device = NumpyDevice()
        with pytest.raises(NetworkError, match="the network is gone"):
            await load_parts(device, source, plan, kernels, lambda progress: None)
        assert device.live_buffers == []

    asyncio.run(run())
