"""What any WebGPU program pays on an adapter: bandwidth, dispatches, submits, read-backs."""

from __future__ import annotations

import time
from typing import Any

from py_engine.gpu.clock import GpuClock
from py_engine.gpu.rates import copy_bytes_per_s, read_kernel
from py_engine.gpu.types import Binding, Buffer, Dispatch, Kernel
from py_engine.kernels.wgsl import kernel_spec
from py_engine.models.attention_limits import most_cache_bytes
from py_engine.tooling.gpu_bench.random_data import RandomData, with_source

_TINY = """
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) { output[id.x] += 1u; }
"""

COUNTS = (1, 10, 100, 1000)


async def measure_copy(clock: GpuClock, nbytes: int) -> dict[str, float]:
    """Copy a large buffer: bytes read plus bytes written per second."""
    device = clock.device
    nbytes = min(nbytes, most_cache_bytes(device.limits))
    return {
        "bytes": float(nbytes),
        "copy_bytes_per_s": await copy_bytes_per_s(device, clock, nbytes),
    }


async def measure_read(clock: GpuClock, data: RandomData, nbytes: int) -> list[dict[str, Any]]:
    """Read a large buffer once, 16 bytes a load, by grids of several sizes."""
    device = clock.device
    nbytes = min(nbytes, most_cache_bytes(device.limits))
    source = data.buffer(nbytes, "words", "codes")
    output = device.create_buffer(16, "output")
    found = []
    for workgroup, groups in ((64, 4096), (256, 1056), (256, 4096), (256, 16384)):
        (kernel,) = await device.compile([read_kernel(nbytes, workgroup, groups)])
        seconds = await clock.seconds(device.program([Dispatch(kernel, (source, output))], "read"))
        found.append({"workgroup": workgroup, "groups": groups, "bytes_per_s": nbytes / seconds})
    source.destroy()
    output.destroy()
    return found


async def measure_dispatches(clock: GpuClock) -> dict[str, float]:
    """Time passes of dependent and of independent dispatches, submits, and read-backs."""
    device = clock.device
    (kernel,) = await device.compile(
        [
            with_source(
                kernel_spec(
                    "tiny",
                    "tiny",
                    snippets=(),
                    bindings=(Binding("output", "read_write", "array<u32, 64>"),),
                    constants={"WORKGROUP": 64},
                    groups_x=1,
                ),
                _TINY,
            )
        ]
    )
    buffers = [device.create_buffer(256, f"output {i}") for i in range(16)]
    found: dict[str, float] = {}
    for count in COUNTS:
        seconds = await _chain(clock, kernel, [buffers[0]] * count)
        found[f"dependent_us_{count}"] = 1e6 * seconds
        seconds = await _chain(clock, kernel, [buffers[i % 16] for i in range(count)])
        found[f"independent_us_{count}"] = 1e6 * seconds
    return found | await _submits(clock, kernel, buffers[0])


async def _chain(clock: GpuClock, kernel: Kernel, buffers: list[Buffer]) -> float:
    program = clock.device.program([Dispatch(kernel, (buffer,)) for buffer in buffers], "tiny")
    return await clock.seconds(program, rounds=5, repeats=1)


async def _submits(clock: GpuClock, kernel: Kernel, buffer: Buffer) -> dict[str, float]:
    device = clock.device
    program = device.program([Dispatch(kernel, (buffer,))], "tiny")

    async def submits(count: int) -> float:
        await device.synchronize()
        started = time.perf_counter()
        for _ in range(count):
            program.submit()
        await device.synchronize()
        return time.perf_counter() - started

    async def reads(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            await program.submit_and_read(buffer, 0)
        return (time.perf_counter() - started) / count

    async def reads_in_flight(count: int) -> float:
        started = time.perf_counter()
        pending = [program.submit_and_read(buffer, 0) for _ in range(count)]
        for reading in pending:
            await reading
        return (time.perf_counter() - started) / count

    await submits(10)
    one = min([await submits(1) for _ in range(5)])
    many = min([await submits(101) for _ in range(5)])
    return {
        "submit_and_wait_us": 1e6 * one,
        "submit_us": 1e4 * (many - one),
        "submit_and_read_us": 1e6 * min([await reads(20) for _ in range(5)]),
        "submit_and_read_in_flight_us": 1e6 * min([await reads_in_flight(20) for _ in range(5)]),
    }
