"""The GPU layer on WebGPU: what it counts, and what it says when something is missing or fails."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import EngineWorker


async def _refused(gpu: str, required: list[str]) -> list[str]:
    """Request a device from an imitation of `navigator.gpu`; return the error's class and text."""
    import js
    from pyodide.code import run_js

    from py_engine.errors import DeviceError
    from py_engine.gpu import adapter

    class Scope:
        navigator = run_js(gpu)

        def __getattr__(self, name):
            return getattr(js, name)

    adapter.js = Scope()
    try:
        await adapter.request_device(required)
    except DeviceError as error:
        return [type(error).__name__, str(error)]
    finally:
        adapter.js = js
    return []


NO_GPU = "({})"
NO_ADAPTER = "({ gpu: { requestAdapter: async () => null } })"
BARE_ADAPTER = """({ gpu: { requestAdapter: async () => ({
    features: new Set(), limits: {}, info: { vendor: 'acme' } }) } })"""


@pytest.mark.parametrize(
    ("gpu", "required", "error", "words"),
    [
        (NO_GPU, [], "WebGPUNotAvailableError", ["navigator.gpu", "Chrome"]),
        (NO_ADAPTER, [], "WebGPUNotFoundError", ["adapter", "driver"]),
        (BARE_ADAPTER, ["shader-f16"], "ShaderF16SupportError", ["shader-f16", "acme", "q4f32_1"]),
        (BARE_ADAPTER, ["subgroups"], "FeatureSupportError", ["subgroups", "acme"]),
    ],
)
def test_a_gpu_that_cannot_be_had_is_explained(
    engine_worker: EngineWorker, gpu: str, required: list[str], error: str, words: list[str]
) -> None:
    found, text = engine_worker.run(_refused, gpu=gpu, required=required)
    assert found == error
    for word in words:
        assert word in text


async def _compile_broken() -> list[str]:
    from py_engine.errors import ShaderCompilationError
    from py_engine.gpu.adapter import request_device
    from py_engine.gpu.types import Binding, KernelSpec

    device = await request_device()
    source = "@compute @workgroup_size(1)\nfn main() {\n  x[0] = undefined_name;\n}\n"
    bindings = (Binding("x", "read_write", "array<f32, 4>"),)
    try:
        await device.compile([KernelSpec("broken", "a broken kernel", source, bindings, {}, 1)])
    except ShaderCompilationError as error:
        return [str(error)]
    finally:
        device.destroy()
    return []


def test_a_compile_error_shows_the_kernel_and_the_line(engine_worker: EngineWorker) -> None:
    [text] = engine_worker.run(_compile_broken)
    assert "a broken kernel" in text
    assert "line 3" in text
    assert "x[0] = undefined_name;" in text


async def _compile_broken_beside_a_check() -> str:
    from py_engine.errors import ShaderCompilationError
    from py_engine.gpu.adapter import request_device
    from py_engine.gpu.types import Binding, KernelSpec

    device = await request_device()
    bindings = (Binding("x", "read_write", "array<f32, 4>"),)
    broken = KernelSpec("broken", "a broken kernel", "fn main() { no }", bindings, {}, 1)
    try:
        async with device.check("doing something else"):
            try:
                await device.compile([broken])
            except ShaderCompilationError as error:
                return str(error)
    finally:
        device.destroy()
    return ""


def test_a_compile_error_is_not_taken_for_what_else_is_going_on(
    engine_worker: EngineWorker,
) -> None:
    """Kernels compile while weights load, inside the check of these."""
    assert "a broken kernel" in engine_worker.run(_compile_broken_beside_a_check)


async def _too_large() -> dict[str, Any]:
    from py_engine.errors import LimitSupportError, ValidationError
    from py_engine.gpu.adapter import request_device

    device = await request_device()
    found = {}
    try:
        device.create_buffer(1 << 40, "a huge buffer")
    except LimitSupportError as error:
        found["limit"] = str(error)
    buffer = device.create_buffer(64, "small")
    try:
        async with device.check("writing past the end"):
            device.write_buffer(buffer, 0, bytes(128))
    except ValidationError as error:
        found["validation"] = str(error)
    device.write_buffer(buffer, 4, b"abcdefg")
    found["afterwards"] = await device.read_buffer(buffer, 0, 16)
    device.destroy()
    return found


def test_limits_and_refusals_are_errors_and_the_device_goes_on(
    engine_worker: EngineWorker,
) -> None:
    found = engine_worker.run(_too_large)
    assert "a huge buffer" in found["limit"]
    assert "maxStorageBufferBindingSize" in found["limit"]
    assert "writing past the end" in found["validation"]
    assert found["afterwards"] == b"\0\0\0\0abcdefg\0" + b"\0\0\0\0"


_COUNT_UP = "@group(0) @binding(0) var<storage, read_write> x: array<u32, 4>; \
@compute @workgroup_size(1) fn main() { x[0] += 1u; }"


async def _many_in_flight(source: str) -> dict[str, Any]:
    import asyncio

    import pywebllm_bridge as bridge

    from py_engine.gpu.adapter import request_device
    from py_engine.gpu.types import Binding, Dispatch, KernelSpec

    device = await request_device()
    spec = KernelSpec(
        "up", "count up", source, (Binding("x", "read_write", "array<u32, 4>"),), {}, 1
    )
    [kernel] = await device.compile([spec])
    buffer = device.create_buffer(16, "counter")
    program = device.program([Dispatch(kernel, (buffer,))] * 3, "three steps")
    before = {name: getattr(bridge.counters, name) for name in bridge.counters.object_keys()}
    values = await asyncio.gather(*[program.submit_and_read(buffer, 0) for _ in range(8)])
    counts = {name: getattr(bridge.counters, name) - n for name, n in before.items()}
    device.destroy()
    return {"values": values, "counts": counts}


def test_reads_in_flight_arrive_in_order_with_one_pass_and_submit_each(
    engine_worker: EngineWorker,
) -> None:
    found = engine_worker.run(_many_in_flight, source=_COUNT_UP)
    assert found["values"] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert found["counts"] == {
        "dispatches": 24,
        "passes": 8,
        "submits": 8,
        "readbacks": 8,
        "bytesRead": 32,
    }


async def _chained(source: str) -> dict[str, Any]:
    import asyncio

    import pywebllm_bridge as bridge

    from py_engine.gpu.adapter import request_device
    from py_engine.gpu.types import Binding, Dispatch, KernelSpec

    device = await request_device()
    spec = KernelSpec(
        "up", "count up", source, (Binding("x", "read_write", "array<u32, 4>"),), {}, 1, 2
    )
    [kernel] = await device.compile([spec])
    buffer = device.create_buffer(16, "counter")
    once = device.program([Dispatch(kernel, (buffer,))], "once")
    thrice = device.program([Dispatch(kernel, (buffer,))] * 3, "three times")
    both = device.chain([once, thrice], "four times")
    longer = device.chain([both, once], "five times")
    submits = bridge.counters.submits
    first = await asyncio.gather(
        both.submit_and_read(buffer, 0),
        longer.submit_and_read_bytes(buffer, 0, 16),
        both.submit_and_read_bytes(buffer, 0, 4),
        longer.submit_and_read_bytes(buffer, 0, 16),
    )
    submits = bridge.counters.submits - submits
    device.clear_buffer(buffer)
    thrice.set_n_tokens(8)  # 4 workgroups high instead of 1
    grown = await both.submit_and_read(buffer, 0)
    both.set_n_tokens(4)
    shrunk = await thrice.submit_and_read(buffer, 0)
    device.destroy()
    return {"first": first, "submits": submits, "grown": grown, "shrunk": shrunk}


def test_chained_programs_run_in_one_submit_and_share_their_grids(
    engine_worker: EngineWorker,
) -> None:
    source = _COUNT_UP.replace("array<u32, 4>", "array<atomic<u32>, 4>")
    found = engine_worker.run(_chained, source=source.replace("x[0] += 1u", "atomicAdd(&x[0], 1u)"))

    def words(value: int, n_words: int = 4) -> bytes:
        return b"".join(n.to_bytes(4, "little") for n in (value, 0, 0, 0)[:n_words])

    assert found["first"] == [4, words(9), words(13, 1), words(18)]
    assert found["submits"] == 4
    assert found["grown"] == 1 + 3 * 4
    assert found["shrunk"] == found["grown"] + 3 * 2


async def _copied() -> list[bytes]:
    from py_engine.gpu.adapter import request_device

    device = await request_device()
    source, target = device.create_buffer(32, "source"), device.create_buffer(64, "target")
    async with device.check("copying"):
        device.write_buffer(source, 0, bytes(range(32)))
        device.write_buffer(target, 0, b"\xff" * 64)
        device.copy_buffer(source, target, 20)
        device.copy_buffer(source, target, 8, 48, 12)
        source.destroy()
        copied = await device.read_buffer(target)
    device.destroy()
    return [copied[:20], copied[20:48], copied[48:56], copied[56:]]


def test_copies_a_part_of_a_buffer_that_may_be_destroyed_at_once(
    engine_worker: EngineWorker,
) -> None:
    expected = [bytes(range(20)), b"\xff" * 28, bytes(range(12, 20)), b"\xff" * 8]
    assert engine_worker.run(_copied) == expected


_COUNT_LONG = "@group(0) @binding(0) var<storage, read_write> x: array<u32, 4>; \
@compute @workgroup_size(1) \
fn main() { for (var i = 0u; i < 10000000u; i++) { x[1] ^= x[2] + i; } }"


async def _read_before_long_work(source: str, long_source: str) -> dict[str, Any]:
    import asyncio
    import time

    from py_engine.gpu.adapter import request_device
    from py_engine.gpu.types import Binding, Dispatch, KernelSpec

    device = await request_device()
    bindings = (Binding("x", "read_write", "array<u32, 4>"),)
    short, long = await device.compile(
        [
            KernelSpec("short", "short", source, bindings, {}, 1),
            KernelSpec("long", "long", long_source, bindings, {}, 1),
        ]
    )
    buffer = device.create_buffer(16, "counter")
    draw = device.program([Dispatch(short, (buffer,))], "draw")
    forward = device.program([Dispatch(long, (buffer,))] * 8, "forward")
    await draw.submit_and_read(buffer, 0)
    started = time.perf_counter()
    reading = asyncio.ensure_future(draw.submit_and_read(buffer, 0))
    forward.submit()
    value = await reading
    read_s = time.perf_counter() - started
    await device.synchronize()
    device_s = time.perf_counter() - started
    device.destroy()
    return {"value": value, "read_s": read_s, "device_s": device_s}


def test_a_read_does_not_wait_for_what_was_submitted_after_it(engine_worker: EngineWorker) -> None:
    """The CPU works on a drawn token while the GPU computes the next logits."""
    found = engine_worker.run(_read_before_long_work, source=_COUNT_UP, long_source=_COUNT_LONG)
    assert found["value"] == 2
    assert found["read_s"] < found["device_s"] / 2


async def _lose_device(source: str) -> list[str]:
    import asyncio

    from py_engine.errors import DeviceLostError
    from py_engine.gpu.adapter import request_device
    from py_engine.gpu.types import Binding, Dispatch, KernelSpec

    device = await request_device()
    spec = KernelSpec(
        "up", "count up", source, (Binding("x", "read_write", "array<u32, 4>"),), {}, 1
    )
    [kernel] = await device.compile([spec])
    buffer = device.create_buffer(16, "counter")
    program = device.program([Dispatch(kernel, (buffer,))], "a step")
    reading = program.submit_and_read(buffer, 0)
    device.handle.destroy()
    found = []
    try:
        await reading
    except DeviceLostError as error:
        found.append(str(error))
    found.append(await asyncio.wait_for(device.wait_lost(), 5))
    try:
        program.submit_and_read(buffer, 0)
    except DeviceLostError as error:
        found.append(str(error))
    return found


def test_a_lost_device_fails_what_is_pending_and_what_comes_after(
    engine_worker: EngineWorker,
) -> None:
    pending, reason, later = engine_worker.run(_lose_device, source=_COUNT_UP)
    assert "device was lost" in pending
    assert reason.startswith("destroyed")
    assert "device was lost" in later


async def _count_buffers() -> list[list[int]]:
    from py_engine.gpu.adapter import request_device

    device = await request_device()
    seen = []

    def note():
        seen.append([device.memory.n_buffers, device.memory.nbytes])

    note()
    buffers = [device.create_buffer(nbytes, "some") for nbytes in (1, 100, 1000)]
    note()
    buffers[1].destroy()
    buffers[1].destroy()
    note()
    buffers[0].destroy()
    buffers[2].destroy()
    note()
    device.destroy()
    return seen


def test_live_buffers_are_counted(engine_worker: EngineWorker) -> None:
    seen = engine_worker.run(_count_buffers)
    assert seen == [[0, 0], [3, 16 + 112 + 1008], [2, 16 + 1008], [0, 0]]
