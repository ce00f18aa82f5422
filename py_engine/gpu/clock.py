"""How long the GPU takes for a program: by its own timestamps, else by the clock on the wall."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import Any

import js
from pyodide.ffi import to_js

from py_engine.gpu.types import Device, Program
from py_engine.gpu.webgpu import WebGPUDevice, WebGPUProgram

_MOST_DISPATCHES = 4000

# Browsers round timestamps to 0.1 ms.
_SHORT_S = 0.005


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
            self._resolved = self._handle.createBuffer(
                size=256, usage=usage.QUERY_RESOLVE | usage.COPY_SRC
            )
            self._staging = self._handle.createBuffer(
                size=16, usage=usage.COPY_DST | usage.MAP_READ
            )

    async def seconds(self, program: Program, rounds: int = 3, repeats: int | None = None) -> float:
        """Return the seconds of one replay: the least of some rounds, after one to warm up.

        A round has as many replays as fill the clock's target time, or `repeats`.
        """
        listed = _listed(program)
        first = await self.once(listed, 1)
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
            encoder.resolveQuerySet(self._queries, 0, 2, self._resolved, 0)
            encoder.copyBufferToBuffer(self._resolved, 0, self._staging, 0, 16)
        commands = to_js([encoder.finish()])
        started = time.perf_counter()
        self._handle.queue.submit(commands)
        if self._queries is None:
            await self.device.synchronize()
            return time.perf_counter() - started
        await self._staging.mapAsync(js.GPUMapMode.READ)
        begin, end = array("Q", js.Uint8Array.new(self._staging.getMappedRange()).to_bytes())
        self._staging.unmap()
        return float(end - begin) / 1e9


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
        for pipeline, group, size in zip(part.pipelines, part.bindGroups, sizes, strict=True):
            # By value: every access makes another proxy of the same object.
            found.append((None if pipeline == current else pipeline, group, *size))
            current = pipeline
    return found
