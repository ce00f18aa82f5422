"""The part of `bench --startup` that runs inside the worker, next to the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import js

from py_engine.engine import MLCEngine
from py_engine.gpu.types import Kernel, KernelSpec
from py_engine.gpu.webgpu import WebGPUDevice
from py_engine.models.base import LoadProgress
from py_engine.progress import LoadReporter

_NAMES = {
    "download": "model into storage",
    "weights": "weights onto the GPU",
    "quality": "quality of int8",
    "choice": "choice of kernels",
}
_KERNELS = "kernels"


async def load_and_ask(model_id: str) -> str:
    """Load a model and ask for one token; return what took place, as JSON.

    Each is a name with its begin and end, in milliseconds since the worker was made. Kernels may
    compile longer than the load lasts, and those of decode longer than the first token takes.
    """
    spans: dict[str, list[float]] = {}
    compiling: list[asyncio.Future[None]] = []

    def see(name: str) -> None:
        now = js.performance.now()
        spans.setdefault(name, [now, now])[1] = now

    # As Any: their methods are replaced for a while.
    reporter: Any = LoadReporter
    device: Any = WebGPUDevice
    on_load, begin_compile = reporter.on_load, device.begin_compile

    def seen(self: LoadReporter, load: LoadProgress) -> None:
        if load.phase in _NAMES:
            see(_NAMES[load.phase])
        on_load(self, load)

    def begun(
        self: WebGPUDevice, specs: Sequence[KernelSpec], on_progress: Any = None
    ) -> list[Kernel]:
        kernels: list[Kernel] = begin_compile(self, specs, on_progress)
        if on_progress is not None:  # of the model, not of what lays its weights out
            see(_KERNELS)
            compiling.append(asyncio.ensure_future(until_compiled(self, kernels)))
        return kernels

    async def until_compiled(device: WebGPUDevice, kernels: Sequence[Kernel]) -> None:
        await device.wait_compiled(kernels)
        see(_KERNELS)

    reporter.on_load, device.begin_compile = seen, begun
    see("loading, as a whole")
    engine = MLCEngine()
    try:
        await engine.reload(model_id)
    finally:
        reporter.on_load, device.begin_compile = on_load, begin_compile
    see("loading, as a whole")
    see("first token")
    messages = [{"role": "user", "content": "Tell me a story."}]
    await engine.chat.completions.create(messages=messages, max_tokens=1)
    see("first token")
    await asyncio.gather(*compiling)
    await engine.unload()
    return json.dumps([[name, *times] for name, times in spans.items()])
