"""How long the GPU takes for a program: by its own timestamps, else by the clock on the wall."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import Any

import js
from pyodide.ffi import to_js

from py_engine.gpu.types import Buffer, Device, Program
from py_engine.gpu.webgpu import WebGPUBuffer, WebGPUDevice, WebGPUProgram

_MOST_DISPATCHES = 4000

# Browsers round timestamps to 0.1 ms.
_SHORT_S = 0.005

# Nothing that has to warm up matters beside so much, and five replays would be a long wait.
_LONG_S = 1.0

_RESOLVED_BYTES = 256  # where timestamps are resolved to has to be aligned so

_FEW_COPIES, _MANY_COPIES, _COPY_ROUNDS = 2, 8, 5


class GpuClock:
    """Times programs, each replayed several times in one compute pass."""

    def __init__(self, device: WebGPUDevice, target_s: float) -> None:
        self.device = device
        self._handle = device.handle
        self._target_s = target_s
        self._queries: Any = None
        if "timestamp-query" in device.features:
            usage = js.GPUBufferUsage
            self._queries = self._handle.createQuerySet(type="timestamp", count=2)
            resolved = self._handle.createBuffer(
                size=_RESOLVED_BYTES, usage=usage.QUERY_RESOLVE | usage.COPY_SRC
            )
            self._resolved = WebGPUBuffer(resolved, _RESOLVED_BYTES, "timestamps", lambda _: None)

    async def seconds(self, program: Program, rounds: int = 3, repeats: int | None = None) -> float:
        """Return the seconds of one replay: the least of some rounds, after one to warm up.

        A round has as many replays as fill the clock's target time, or `repeats`. Where the first
        replay takes more than a second there is one more, and the faster one counts.
        """
        listed = _listed(program)
        first = await self.once(listed, 1)
        if first > _LONG_S:
            return min(first, await self.once(listed, 1))
        if repeats is None:
            most = max(1, _MOST_DISPATCHES // len(listed))
            repeats = max(1, min(most, round(self._target_s / max(first, 1e-7))))
        await self.once(listed, repeats)
        return min([await self.once(listed, repeats) / repeats for _ in range(rounds)])

    async def once(self, listed: Sequence[Listed], repeats: int) -> float:
        """Return the seconds of a pass of so many replays."""
        encoder = self._handle.createCommandEncoder()
        if self._queries is None:
            compute = encoder.beginComputePass()
        else:
            writes = {
                "querySet": self._queries,
                "beginningOfPassWriteIndex": 0,
                "endOfPassWriteIndex": 1,
            }
            compute = encoder.beginComputePass(to_js({"timestampWrites": writes}))
        set_pipeline, set_group = compute.setPipeline, compute.setBindGroup
        dispatch = compute.dispatchWorkgroups
        for _ in range(repeats):
            for pipeline, group, x, y, z in listed:
                if pipeline is not None:
                    set_pipeline(pipeline)
                set_group(0, group)
                dispatch(x, y, z)
        compute.end()
        if self._queries is not None:
            encoder.resolveQuerySet(self._queries, 0, 2, self._resolved.handle, 0)
        commands = to_js([encoder.finish()])
        started = time.perf_counter()
        self._handle.queue.submit(commands)
        if self._queries is None:
            await self.device.synchronize()
            return time.perf_counter() - started
        begin, end = array("Q", await self.device.read_buffer(self._resolved, 0, 16))
        return float(end - begin) / 1e9

    async def copy_seconds(self, source: Buffer, target: Buffer) -> float:
        """Return the seconds of one copy of all of `source`, by the wall's clock.

        It is what many copies take longer than a few, so that submit and wait cancel out.
        """
        assert isinstance(source, WebGPUBuffer) and isinstance(target, WebGPUBuffer)

        async def seconds(repeats: int) -> float:
            encoder = self._handle.createCommandEncoder()
            for _ in range(repeats):
                encoder.copyBufferToBuffer(source.handle, 0, target.handle, 0, source.nbytes)
            commands = to_js([encoder.finish()])
            await self.device.synchronize()
            started = time.perf_counter()
            self._handle.queue.submit(commands)
            await self.device.synchronize()
            return time.perf_counter() - started

        few, many = _FEW_COPIES, _MANY_COPIES
        rounds = [(await seconds(few), await seconds(many)) for _ in range(_COPY_ROUNDS)]
        least, most = min(few_s for few_s, _ in rounds), min(many_s for _, many_s in rounds)
        return (most - least) / (many - few) if most > least else most / many


def clock_of(device: Device) -> GpuClock:
    """Return a clock of a device of the browser, for measurements that hold nobody up."""
    assert isinstance(device, WebGPUDevice)
    return GpuClock(device, _SHORT_S)


Listed = tuple[Any, Any, int, int, int]


def _listed(program: Program) -> list[Listed]:
    """Return pipeline (None: as before), bind group and grid of each of a program's dispatches."""
    assert isinstance(program, WebGPUProgram)
    found: list[Listed] = []
    for part in program.handle.parts:
        grid = list(part.grid.to_py())
        sizes = zip(grid[::3], grid[1::3], grid[2::3], strict=True)
        current = None
        for kernel, group, size in zip(part.kernels, part.bindGroups, sizes, strict=True):
            pipeline = kernel.pipeline
            # By value: every access makes another proxy of the same object.
            found.append((None if pipeline == current else pipeline, group, *size))
            current = pipeline
    return found
