"""An engine whose GPU is NumPy and whose clock is scripted, to profile models with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from py_engine.engine import MLCEngine
from py_engine.gpu.types import AdapterInfo
from py_engine.models.base import SamplingParams
from py_engine.models.profile import profile_kernels
from tests.conformance.running import load_folder_on_numpy
from tests.support.fake_host import FakeHost
from tests.support.numpy_device import NumpyDevice

FIXTURES = (
    "gqa_tied_q4f16",
    "gpt2_q4f16",
    "mistral_window_24_q0f32",
    "phi4_mini_longrope_q0f16",
    "qwen3_5_grouped_q4f32",
)
"""Models of different kinds."""

GPU = AdapterInfo("acme", "roadrunner", description="Roadrunner 3", subgroup_size_max=4)
MICROSECONDS = {"embed": 1, "qkv": 2, "attention": 3, "output": 4, "gate_up": 5, "down": 6}
MICROSECONDS |= {"lm_head": 100, "sample": 10, "combine": 7, "multiply_add": 2000, "read": 4000}


def _microseconds(label: str) -> int:
    name = label.removeprefix("prefill ")
    return MICROSECONDS.get(name, 0) * (1 if name == label else 10)


class Clock:
    """Takes so long for each dispatch as its label says, in prefill ten times as long.

    `on_program` acts before each program.
    """

    def __init__(self, on_program: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self.on_program = on_program

    async def seconds(self, program: Any) -> float:
        if self.on_program is not None:
            await self.on_program(program)
        return sum(_microseconds(each.kernel.spec.label) for each in program._dispatches) / 1e6

    async def copy_seconds(self, source: Any, target: Any) -> float:
        assert source.nbytes == target.nbytes
        return float(source.nbytes) / 10e9


class Host(FakeHost):
    """Loads a fixture's model onto a device in NumPy; `clock` is a scripted one."""

    def __init__(self, folder: Path, info: AdapterInfo | None = None) -> None:
        super().__init__("model")
        self.folder = folder
        self.info = info
        self.clock = Clock()
        self.devices: list[Any] = []

    async def request_device(self, required_features: Any, memory_limit: int | None = None) -> Any:
        self.devices.append(NumpyDevice())
        self.devices[-1].info = self.info or self.devices[-1].info
        return self.devices[-1]

    async def load_model(self, device: Any, *arguments: Any) -> Any:
        return await load_folder_on_numpy(self.folder, device)

    async def profile_kernels(
        self,
        model: Any,
        n_tokens: int,
        sampling: SamplingParams,
        before_each: Callable[[], None],
    ) -> Any:
        return await profile_kernels(model, self.clock, n_tokens, sampling, before_each)


async def engine_of(host: Host) -> MLCEngine:
    engine = MLCEngine({"app_config": host.app_config}, host=host)
    await engine.reload("model")
    return engine
