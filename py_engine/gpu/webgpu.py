"""`gpu.types.Device` on the browser's `navigator.gpu`.

`gpu/adapter.py` finds the adapter, `gpu/browser_gpu.py` has what stays from one model to the next,
and `gpu/pipelines.py` compiles. The hot loop, replaying a program, is in `worker/gpu_bridge.mjs`,
the module `pywebllm_bridge` in the worker.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import js
import pywebllm_bridge as bridge
from pyodide.ffi import JsException, to_js

from py_engine import errors
from py_engine.gpu.browser_gpu import BrowserGpu, lost_error, reported_error
from py_engine.gpu.memory import require_memory
from py_engine.gpu.pipelines import LIMITS, WebGPUKernel
from py_engine.gpu.types import (
    Buffer,
    BufferSlice,
    Dispatch,
    GpuMemory,
    Kernel,
    KernelSpec,
    Program,
)


class WebGPUBuffer:
    """A buffer; `destroy` frees its memory at once, and tells `on_destroyed`."""

    def __init__(
        self,
        handle: Any,
        nbytes: int,
        label: str,
        on_destroyed: Callable[[WebGPUBuffer], None],
    ) -> None:
        self.handle = handle
        self.nbytes = nbytes
        self.label = label
        self._on_destroyed = on_destroyed

    def destroy(self) -> None:
        """Free the bytes on the GPU; may be called twice."""
        self.handle.destroy()
        self._on_destroyed(self)


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
            grid[slot] = spec.workgroups(n_tokens)[spec.token_axis]

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
    """Buffers and work on a GPU of the browser. See `gpu.types.Device` for what the methods do.

    `destroy` frees its buffers, and the GPU too unless `keeps_gpu`, for another one to use.
    """

    def __init__(
        self, gpu: BrowserGpu, memory_limit: int | None = None, *, keeps_gpu: bool = False
    ) -> None:
        self.handle = gpu.handle
        self.info = gpu.info
        self.features = gpu.features
        self.limits = gpu.limits
        self.memory_limit = memory_limit
        self._gpu = gpu
        self._keeps_gpu = keeps_gpu
        self._queue = gpu.handle.queue
        self._buffers: set[WebGPUBuffer] = set()
        self._nbytes = 0  # of these, for every new one is checked against the limit
        self._destroyed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def memory(self) -> GpuMemory:
        return GpuMemory(len(self._buffers), self._nbytes)

    def create_buffer(self, nbytes: int, label: str, *, is_uniform: bool = False) -> WebGPUBuffer:
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
        kind = usage.UNIFORM if is_uniform else usage.STORAGE
        handle = self.handle.createBuffer(
            size=size, label=label, usage=kind | usage.COPY_SRC | usage.COPY_DST
        )
        buffer = WebGPUBuffer(handle, size, label, self._forget)
        self._buffers.add(buffer)
        self._nbytes += size
        return buffer

    def _forget(self, buffer: WebGPUBuffer) -> None:
        if buffer in self._buffers:
            self._buffers.remove(buffer)
            self._nbytes -= buffer.nbytes

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

    def copy_buffer(
        self, source: Buffer, target: Buffer, nbytes: int, offset: int = 0, source_offset: int = 0
    ) -> None:
        self.require_alive()
        encoder = self.handle.createCommandEncoder()
        encoder.copyBufferToBuffer(_handle(source), source_offset, _handle(target), offset, nbytes)
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
            raise self._gpu.read_failure(error) from error
        finally:
            staging.destroy()

    async def compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        kernels = self.begin_compile(specs, on_progress)
        await self.wait_compiled(kernels)
        return kernels

    def begin_compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        self.require_alive()
        return [*self._gpu.compiler.begin(specs, on_progress)]

    async def wait_compiled(self, kernels: Iterable[Kernel]) -> None:
        self.require_alive()
        ends: set[asyncio.Future[str]] = {self._gpu.lost, self._destroyed}
        pending: set[asyncio.Future[Any]] = {*map(_compiling, kernels)}
        while pending:
            # Whoever stops waiting leaves what compiles to the others.
            done, _ = await asyncio.wait(pending | ends, return_when=asyncio.FIRST_COMPLETED)
            self.require_alive()
            pending -= done
            for task in done:
                task.result()

    def program(self, dispatches: Sequence[Dispatch], label: str) -> Program:
        kernels, groups, grid = [], [], array("I")
        for dispatch in dispatches:
            kernel = dispatch.kernel
            assert isinstance(kernel, WebGPUKernel)
            kernels.append(kernel.handle)
            groups.append(self._bind_group(kernel, dispatch.buffers))
            grid.extend(kernel.spec.workgroups(dispatch.n_tokens))
        grid_js = js.Uint32Array.new(len(grid))
        grid_js.assign(grid)
        handle = bridge.createProgram(self.handle, label, to_js(kernels), to_js(groups), grid_js)
        variable = [
            (grid_js, 3 * index + dispatch.kernel.spec.token_axis, dispatch.kernel.spec)
            for index, dispatch in enumerate(dispatches)
            if dispatch.kernel.spec.tokens_per_group
        ]
        return WebGPUProgram(self, handle, variable)

    def chain(self, programs: Sequence[Program], label: str) -> Program:
        parts = [program for program in programs if isinstance(program, WebGPUProgram)]
        assert len(parts) == len(programs)
        handle = bridge.chainPrograms(self.handle, label, to_js([part.handle for part in parts]))
        return WebGPUProgram(self, handle, [grid for part in parts for grid in part.variable])

    def _bind_group(self, kernel: WebGPUKernel, buffers: Sequence[Buffer | BufferSlice]) -> Any:
        entries = [
            {"binding": index, "resource": _resource(buffer)}
            for index, buffer in enumerate(buffers)
        ]
        return self.handle.createBindGroup(
            to_js({"layout": kernel.layout, "entries": entries, "label": kernel.spec.label})
        )

    def submit_and_read(self, program: Any, source: Buffer, offset: int) -> Awaitable[int]:
        """Replay a bridge program at once; awaiting gives one u32. Raises DeviceLostError."""
        self.require_alive()
        return self._finish_read(self._gpu.ring.submitAndRead(program, _handle(source), offset))

    def submit_and_read_bytes(
        self, program: Any, source: Buffer, offset: int, nbytes: int
    ) -> Awaitable[bytes]:
        """Replay a bridge program at once; awaiting gives bytes. Raises DeviceLostError."""
        self.require_alive()
        return self._finish_read_bytes(
            self._gpu.ring.submitAndReadBytes(program, _handle(source), offset, nbytes)
        )

    async def _finish_read_bytes(self, reading: Any) -> bytes:
        data = await self._finish_read(reading)
        return bytes(data.to_bytes())

    async def _finish_read(self, reading: Any) -> Any:
        try:
            value = await reading
        except JsException as error:
            raise self._gpu.read_failure(error) from error
        self.require_alive()
        return value

    @asynccontextmanager
    async def check(self, what: str) -> AsyncIterator[None]:
        self.require_alive()
        for kind in ("validation", "out-of-memory"):
            self.handle.pushErrorScope(kind)
        try:
            yield
        except BaseException:
            self._gpu.note_failure()
            raise
        finally:
            # Both at once, before the browser gets other work to do meanwhile.
            answers = [self.handle.popErrorScope() for _ in range(2)]
            found = [await answer for answer in answers]
        self.require_alive()
        for error in filter(None, found):
            self._gpu.note_failure()
            raise reported_error(error, what)

    async def synchronize(self) -> None:
        self.require_alive()
        await self._queue.onSubmittedWorkDone()
        self.require_alive()

    async def wait_lost(self) -> str:
        ends = {self._gpu.lost, self._destroyed}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()

    def destroy(self) -> None:
        if self._destroyed.done():
            return
        self._destroyed.set_result("destroyed: the engine has freed it")
        for buffer in list(self._buffers):
            buffer.destroy()
        if not self._keeps_gpu:
            self._gpu.destroy()

    def require_alive(self) -> None:
        """Raise DeviceLostError when the device is lost or destroyed."""
        self._gpu.require_alive()
        if self._destroyed.done():
            raise lost_error(self._destroyed.result())


def _compiling(kernel: Kernel) -> asyncio.Future[None]:
    assert isinstance(kernel, WebGPUKernel)
    return kernel.compiling


def _resource(bound: Buffer | BufferSlice) -> dict[str, Any]:
    if isinstance(bound, BufferSlice):
        return {"buffer": _handle(bound.buffer), "offset": bound.offset, "size": bound.nbytes}
    return {"buffer": _handle(bound)}


def _handle(buffer: Buffer) -> Any:
    assert isinstance(buffer, WebGPUBuffer)
    return buffer.handle
