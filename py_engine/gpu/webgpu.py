"""`gpu.types.Device` on the browser's `navigator.gpu`.

`gpu/adapter.py` finds the adapter and `gpu/pipelines.py` compiles. The hot loop, replaying a
program, is in `worker/gpu_bridge.mjs`, the module `pywebllm_bridge` in the worker.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import js
import pywebllm_bridge as bridge
from pyodide.ffi import JsException, create_once_callable, create_proxy, to_js

from py_engine import errors
from py_engine.gpu.memory import require_memory
from py_engine.gpu.pipelines import LIMITS, PipelineCompiler, WebGPUKernel
from py_engine.gpu.types import (
    AdapterInfo,
    Buffer,
    Dispatch,
    GpuMemory,
    Kernel,
    KernelSpec,
    Limits,
    Program,
)


class WebGPUBuffer:
    """A storage buffer; `destroy` frees its memory at once, and tells `on_destroyed`."""

    def __init__(
        self, handle: Any, nbytes: int, label: str, on_destroyed: Callable[[int], None]
    ) -> None:
        self.handle = handle
        self.nbytes = nbytes
        self.label = label
        self._on_destroyed: Callable[[int], None] | None = on_destroyed

    def destroy(self) -> None:
        """Free the bytes on the GPU; may be called twice."""
        self.handle.destroy()
        on_destroyed, self._on_destroyed = self._on_destroyed, None
        if on_destroyed is not None:
            on_destroyed(self.nbytes)


class WebGPUProgram:
    """A recorded program whose replay is one call into JavaScript."""

    def __init__(
        self,
        device: WebGPUDevice,
        handle: Any,
        variable: Sequence[tuple[Any, int, KernelSpec]],
    ) -> None:
        self.handle = handle
        self.variable = variable  # grids that depend on the number of tokens: array, index, kernel
        self._device = device

    def set_n_tokens(self, n_tokens: int) -> None:
        """Resize every grid that depends on the number of tokens."""
        for grid, slot, spec in self.variable:
            grid[slot] = spec.workgroups(n_tokens)[1]

    def submit(self) -> None:
        """Replay the program; returns at once. Raises DeviceLostError."""
        self._device.require_alive()
        bridge.submit(self.handle)

    def submit_and_read(self, source: Buffer, offset: int) -> Awaitable[int]:
        """Replay the program; awaiting gives the u32 at byte `offset` of `source` after it."""
        return self._device.submit_and_read(self.handle, source, offset)

    def submit_and_read_bytes(self, source: Buffer, offset: int, nbytes: int) -> Awaitable[bytes]:
        """Replay the program; awaiting gives bytes of `source` after it."""
        return self._device.submit_and_read_bytes(self.handle, source, offset, nbytes)


class WebGPUDevice:
    """A GPU device of the browser. See `gpu.types.Device` for what the methods do."""

    def __init__(
        self,
        handle: Any,
        info: AdapterInfo,
        features: frozenset[str],
        memory_limit: int | None = None,
    ) -> None:
        self.handle = handle
        self.info = info
        self.features = features
        self.limits = Limits(
            **{name: int(getattr(handle.limits, js_name)) for name, js_name in LIMITS.items()}
        )
        self.memory = GpuMemory()
        self.memory_limit = memory_limit
        self._queue = handle.queue
        self._ring = bridge.ReadbackRing.new(handle)
        self._compiler = PipelineCompiler(handle, self.limits, self.require_alive)
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        handle.lost.then(create_once_callable(self._on_lost))
        self._on_error = create_proxy(self._report_uncaptured)
        handle.addEventListener("uncapturederror", self._on_error)

    def create_buffer(self, nbytes: int, label: str) -> WebGPUBuffer:
        self.require_alive()
        size = max(16, -(-nbytes // 16) * 16)
        for name in ("max_storage_buffer_binding_size", "max_buffer_size"):
            limit = getattr(self.limits, name)
            if size > limit:
                raise errors.LimitSupportError(
                    f"Buffer '{label}' needs {size:,} bytes, but this GPU's {LIMITS[name]} is"
                    f" {limit:,}. Use a smaller context_window_size or a smaller model."
                )
        require_memory(self, size, label)
        usage = js.GPUBufferUsage
        handle = self.handle.createBuffer(
            size=size, label=label, usage=usage.STORAGE | usage.COPY_SRC | usage.COPY_DST
        )
        self._count_buffers(1, size)
        return WebGPUBuffer(handle, size, label, lambda nbytes: self._count_buffers(-1, -nbytes))

    def _count_buffers(self, n_buffers: int, nbytes: int) -> None:
        before = self.memory
        self.memory = GpuMemory(before.n_buffers + n_buffers, before.nbytes + nbytes)

    def write_buffer(
        self,
        buffer: Buffer,
        offset: int,
        data: Any,
        data_offset: int = 0,
        nbytes: int | None = None,
    ) -> None:
        self.require_alive()
        if not hasattr(data, "byteLength"):
            view = memoryview(data).cast("B")
            data = js.Uint8Array.new(len(view))
            data.assign(view)
            data = data.buffer
        if nbytes is None:
            nbytes = int(data.byteLength) - data_offset
        whole = nbytes & ~3
        handle = _handle(buffer)
        if whole:
            self._queue.writeBuffer(handle, offset, data, data_offset, whole)
        if nbytes > whole:
            tail = js.Uint8Array.new(4)
            tail.set(js.Uint8Array.new(data, data_offset + whole, nbytes - whole))
            self._queue.writeBuffer(handle, offset + whole, tail)

    def clear_buffer(self, buffer: Buffer) -> None:
        self.require_alive()
        encoder = self.handle.createCommandEncoder()
        encoder.clearBuffer(_handle(buffer))
        self._queue.submit(to_js([encoder.finish()]))

    def copy_buffer(self, source: Buffer, target: Buffer, nbytes: int, offset: int = 0) -> None:
        self.require_alive()
        encoder = self.handle.createCommandEncoder()
        encoder.copyBufferToBuffer(_handle(source), 0, _handle(target), offset, nbytes)
        self._queue.submit(to_js([encoder.finish()]))

    async def read_buffer(
        self, buffer: Buffer, offset: int = 0, nbytes: int | None = None
    ) -> bytes:
        self.require_alive()
        size = buffer.nbytes - offset if nbytes is None else nbytes
        usage = js.GPUBufferUsage
        staging = self.handle.createBuffer(
            size=-(-size // 4) * 4,
            label=f"read {buffer.label}",
            usage=usage.COPY_DST | usage.MAP_READ,
        )
        try:
            encoder = self.handle.createCommandEncoder()
            encoder.copyBufferToBuffer(_handle(buffer), offset, staging, 0, -(-size // 4) * 4)
            self._queue.submit(to_js([encoder.finish()]))
            await staging.mapAsync(js.GPUMapMode.READ)
            return bytes(js.Uint8Array.new(staging.getMappedRange()).to_bytes()[:size])
        except JsException as error:
            raise self._read_failure(error) from error
        finally:
            staging.destroy()

    async def compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        self.require_alive()
        compiled = await self._compiler.compile(specs, on_progress)
        return list(compiled)

    def program(self, dispatches: Sequence[Dispatch], label: str) -> Program:
        pipelines, groups, grid = [], [], array("I")
        for dispatch in dispatches:
            kernel = dispatch.kernel
            assert isinstance(kernel, WebGPUKernel)
            pipelines.append(kernel.pipeline)
            groups.append(self._bind_group(kernel, dispatch.buffers))
            grid.extend(kernel.spec.workgroups(dispatch.n_tokens))
        grid_js = js.Uint32Array.new(len(grid))
        grid_js.assign(grid)
        handle = bridge.createProgram(self.handle, label, to_js(pipelines), to_js(groups), grid_js)
        variable = [
            (grid_js, 3 * index + 1, dispatch.kernel.spec)
            for index, dispatch in enumerate(dispatches)
            if dispatch.kernel.spec.tokens_per_group
        ]
        return WebGPUProgram(self, handle, variable)

    def chain(self, programs: Sequence[Program], label: str) -> Program:
        parts = [program for program in programs if isinstance(program, WebGPUProgram)]
        assert len(parts) == len(programs)
        handle = bridge.chainPrograms(self.handle, label, to_js([part.handle for part in parts]))
        return WebGPUProgram(self, handle, [grid for part in parts for grid in part.variable])

    def _bind_group(self, kernel: WebGPUKernel, buffers: Sequence[Buffer]) -> Any:
        entries = [
            {"binding": index, "resource": {"buffer": _handle(buffer)}}
            for index, buffer in enumerate(buffers)
        ]
        return self.handle.createBindGroup(
            to_js({"layout": kernel.layout, "entries": entries, "label": kernel.spec.label})
        )

    def submit_and_read(self, program: Any, source: Buffer, offset: int) -> Awaitable[int]:
        """Replay a bridge program at once; awaiting gives one u32. Raises DeviceLostError."""
        self.require_alive()
        return self._finish_read(self._ring.submitAndRead(program, _handle(source), offset))

    def submit_and_read_bytes(
        self, program: Any, source: Buffer, offset: int, nbytes: int
    ) -> Awaitable[bytes]:
        """Replay a bridge program at once; awaiting gives bytes. Raises DeviceLostError."""
        self.require_alive()
        return self._finish_read_bytes(
            self._ring.submitAndReadBytes(program, _handle(source), offset, nbytes)
        )

    async def _finish_read_bytes(self, reading: Any) -> bytes:
        data = await self._finish_read(reading)
        return bytes(data.to_bytes())

    async def _finish_read(self, reading: Any) -> Any:
        try:
            return await reading
        except JsException as error:
            raise self._read_failure(error) from error

    @asynccontextmanager
    async def check(self, what: str) -> AsyncIterator[None]:
        self.require_alive()
        for kind in ("validation", "out-of-memory"):
            self.handle.pushErrorScope(kind)
        try:
            yield
        finally:
            found = [await self.handle.popErrorScope() for _ in range(2)]
        self.require_alive()
        for error in filter(None, found):
            raise _reported(error, what)

    async def synchronize(self) -> None:
        self.require_alive()
        await self._queue.onSubmittedWorkDone()
        self.require_alive()

    async def wait_lost(self) -> str:
        return await asyncio.shield(self._lost)

    def destroy(self) -> None:
        self.handle.removeEventListener("uncapturederror", self._on_error)
        self._on_error.destroy()
        self.handle.destroy()

    def require_alive(self) -> None:
        """Raise DeviceLostError when the device is lost: WebGPU itself would fail silently."""
        if self._lost.done():
            raise self._lost_error()

    def _on_lost(self, info: Any) -> None:
        if not self._lost.done():
            self._lost.set_result(f"{info.reason}: {info.message}")

    def _lost_error(self) -> errors.DeviceLostError:
        reason = f" ({self._lost.result()})" if self._lost.done() else ""
        return errors.DeviceLostError(
            f"The GPU device was lost{reason}. This is often a lack of GPU memory: reload the"
            " model, or choose a smaller one or a smaller context_window_size."
        )

    def _read_failure(self, error: JsException) -> errors.DeviceError:
        # A lost device aborts what is being mapped, sometimes before it says that it is lost.
        if self._lost.done() or error.name == "AbortError":
            return self._lost_error()
        return errors.ValidationError(f"Reading from the GPU failed: {error.message}")

    def _report_uncaptured(self, event: Any) -> None:
        js.console.error(f"WebGPU error outside of any check: {event.error.message}")


def _reported(error: Any, what: str) -> errors.DeviceError:
    text = f"The GPU refused while {what}: {error.message}"
    if error.constructor.name == "GPUOutOfMemoryError":
        return errors.OutOfMemoryError(
            f"{text} The GPU's memory is full: close other tabs, or choose a smaller model or"
            " context_window_size."
        )
    return errors.ValidationError(text)


def _handle(buffer: Buffer) -> Any:
    assert isinstance(buffer, WebGPUBuffer)
    return buffer.handle
