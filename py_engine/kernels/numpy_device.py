"""`gpu.types.Device` in NumPy: programs run the kernels' references, so that the engine runs in
CPython without a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from py_engine.gpu.memory import require_memory
from py_engine.gpu.types import (
    AdapterInfo,
    Binding,
    Buffer,
    BufferSlice,
    Dispatch,
    GpuMemory,
    Kernel,
    KernelSpec,
    Limits,
)
from py_engine.kernels.reference import REFERENCES
from py_engine.kernels.reference_sampling import STRUCTS


class NumpyBuffer:
    """Bytes of a buffer; `data` is None once destroyed."""

    def __init__(self, nbytes: int, label: str) -> None:
        self.nbytes = max(16, -(-nbytes // 16) * 16)
        self.label = label
        self.data: np.ndarray[Any, np.dtype[np.uint8]] | None = np.zeros(self.nbytes, np.uint8)

    def view(self, dtype: Any) -> np.ndarray[Any, Any]:
        """Return the bytes as an array of `dtype`."""
        assert self.data is not None, f"buffer '{self.label}' is used after it was destroyed"
        return self.data.view(dtype)

    def destroy(self) -> None:
        self.data = None


class NumpyKernel:
    def __init__(self, spec: KernelSpec) -> None:
        self.spec = spec


def binding_view(binding: Binding, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a buffer's bytes as its binding's scalar type, cut to the declared size if any."""
    if (struct := STRUCTS.get(binding.type)) is not None:
        return data[: len(data) // struct.itemsize * struct.itemsize].view(struct)
    element, _, size = binding.type.removeprefix("array<").removesuffix(">").partition(", ")
    width = {"vec2": 2, "vec4": 4}.get(element[:4], 1)
    dtype = np.float32 if element.endswith("f") or element == "f32" else np.uint32
    return data.view(dtype)[: int(size) * width if size else None]


def _bytes(bound: Buffer | BufferSlice) -> np.ndarray[Any, Any]:
    if isinstance(bound, BufferSlice):
        return _bytes(bound.buffer)[bound.offset : bound.offset + bound.nbytes]
    assert isinstance(bound, NumpyBuffer)
    return bound.view(np.uint8)


class NumpyProgram:
    """Runs references; the labels of the kernels it ran are added to `log`."""

    def __init__(self, dispatches: Sequence[Dispatch], log: list[str]) -> None:
        self._dispatches = dispatches
        self._log = log
        self._n_tokens: int | None = None

    def set_n_tokens(self, n_tokens: int) -> None:
        self._n_tokens = n_tokens

    def submit(self) -> None:
        for dispatch in self._dispatches:
            spec = dispatch.kernel.spec
            self._log.append(spec.label)
            n_tokens = dispatch.n_tokens if self._n_tokens is None else self._n_tokens
            arrays = {
                binding.name: binding_view(binding, _bytes(buffer))
                for binding, buffer in zip(spec.bindings, dispatch.buffers, strict=True)
            }
            REFERENCES[spec.name](spec.constants, n_tokens, arrays)

    def submit_and_read(self, source: Buffer, offset: int) -> Awaitable[int]:
        self.submit()
        value = int(source.view(np.uint32)[offset // 4])  # type: ignore[attr-defined]

        async def arrive() -> int:
            await asyncio.sleep(0)
            return value

        return arrive()

    def submit_and_read_bytes(self, source: Buffer, offset: int, nbytes: int) -> Awaitable[bytes]:
        self.submit()
        value = bytes(source.view(np.uint8)[offset : offset + nbytes])  # type: ignore[attr-defined]

        async def arrive() -> bytes:
            await asyncio.sleep(0)
            return value

        return arrive()


class NumpyChain(NumpyProgram):
    """Programs one after the other; it has no dispatches of its own."""

    def __init__(self, programs: Sequence[NumpyProgram]) -> None:
        super().__init__((), [])
        self._programs = programs

    def set_n_tokens(self, n_tokens: int) -> None:
        for program in self._programs:
            program.set_n_tokens(n_tokens)

    def submit(self) -> None:
        for program in self._programs:
            program.submit()


class NumpyDevice:
    """Keeps its buffers and the labels of the kernels it ran, for tests of what leaks and runs."""

    def __init__(self) -> None:
        self.info = AdapterInfo(
            vendor="numpy",
            description="NumPy reference",
            is_fallback=True,
            has_f16=True,
            has_int8_dot=True,
        )
        self.features: frozenset[str] = frozenset()
        self.limits = Limits()
        self.memory_limit: int | None = None
        self.buffers: list[NumpyBuffer] = []
        self.dispatched: list[str] = []

    @property
    def memory(self) -> GpuMemory:
        live = [buffer.nbytes for buffer in self.buffers if buffer.data is not None]
        return GpuMemory(len(live), sum(live))

    @property
    def live_buffers(self) -> list[str]:
        return [buffer.label for buffer in self.buffers if buffer.data is not None]

    def create_buffer(self, nbytes: int, label: str, *, is_uniform: bool = False) -> NumpyBuffer:
        buffer = NumpyBuffer(nbytes, label)
        require_memory(self, buffer.nbytes, label)
        self.buffers.append(buffer)
        return buffer

    def write_buffer(
        self,
        buffer: Buffer,
        offset: int,
        data: Any,
        data_offset: int = 0,
        nbytes: int | None = None,
    ) -> None:
        view = memoryview(data).cast("B")
        end = len(view) if nbytes is None else data_offset + nbytes
        raw = np.frombuffer(view[data_offset:end], np.uint8)
        buffer.view(np.uint8)[offset : offset + len(raw)] = raw  # type: ignore[attr-defined]

    def clear_buffer(self, buffer: Buffer) -> None:
        buffer.view(np.uint8)[:] = 0  # type: ignore[attr-defined]

    def copy_buffer(
        self, source: Buffer, target: Buffer, nbytes: int, offset: int = 0, source_offset: int = 0
    ) -> None:
        assert source is not target, "WebGPU copies between different buffers only"
        data = source.view(np.uint8)[source_offset : source_offset + nbytes]  # type: ignore[attr-defined]
        target.view(np.uint8)[offset : offset + nbytes] = data  # type: ignore[attr-defined]

    async def read_buffer(
        self, buffer: Buffer, offset: int = 0, nbytes: int | None = None
    ) -> bytes:
        end = buffer.nbytes if nbytes is None else offset + nbytes
        return bytes(buffer.view(np.uint8)[offset:end])  # type: ignore[attr-defined]

    async def compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        kernels = self.begin_compile(specs, on_progress)
        await self.wait_compiled(kernels)
        return kernels

    def begin_compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        if on_progress:
            on_progress(len(specs), len(specs))
        return [NumpyKernel(spec) for spec in specs]

    async def wait_compiled(self, kernels: Iterable[Kernel]) -> None:
        pass

    def program(self, dispatches: Sequence[Dispatch], label: str) -> NumpyProgram:
        return NumpyProgram(dispatches, self.dispatched)

    def chain(self, programs: Sequence[Any], label: str) -> NumpyProgram:
        return NumpyChain(programs)

    @asynccontextmanager
    async def check(self, what: str) -> AsyncIterator[None]:
        yield

    async def synchronize(self) -> None:
        await asyncio.sleep(0)

    async def wait_lost(self) -> str:
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    def destroy(self) -> None:
        for buffer in self.buffers:
            buffer.destroy()
