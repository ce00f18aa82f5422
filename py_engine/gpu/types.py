"""The GPU as the rest of the engine sees it: kernels, buffers, programs, and the device's protocol.

Nothing here touches the browser. `gpu/webgpu.py` implements the protocol on `navigator.gpu`; tests
implement it with NumPy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Workgroups = tuple[int, int, int]
Access = Literal["read", "read_write", "uniform"]


INT8_DOT = "packed_4x8_integer_dot_product"
"""WGSL's language feature of integer dot products of four bytes each."""


@dataclass(frozen=True)
class AdapterInfo:
    """What the browser tells about the GPU. `subgroup_size_max` is None without subgroups.

    `has_f16` tells whether shaders may compute in f16, `has_int8_dot` whether WGSL has INT8_DOT.
    """

    vendor: str = ""
    architecture: str = ""
    device: str = ""
    description: str = ""
    is_fallback: bool = False
    subgroup_size_max: int | None = None
    has_f16: bool = False
    has_int8_dot: bool = False

    def __str__(self) -> str:
        return self.description or " ".join(filter(None, (self.vendor, self.architecture)))


@dataclass(frozen=True)
class Limits:
    """Limits of the device that decide whether a model fits, in bytes where they are sizes."""

    max_buffer_size: int = 256 << 20
    max_storage_buffer_binding_size: int = 128 << 20
    max_compute_workgroup_storage_size: int = 16384
    max_compute_invocations_per_workgroup: int = 256
    max_compute_workgroup_size_x: int = 256
    max_storage_buffers_per_shader_stage: int = 8
    max_compute_workgroups_per_dimension: int = 65535


@dataclass(frozen=True)
class GpuMemory:
    """What a device's buffers take at one moment: how many there are, and their bytes."""

    n_buffers: int = 0
    nbytes: int = 0


@dataclass(frozen=True)
class Binding:
    """One buffer of a kernel, of storage or uniform: `type` is its WGSL type.

    Sizes known when it is built make a kernel faster; an array without one is as long as its
    buffer.
    """

    name: str
    access: Access
    type: str

    @property
    def nbytes(self) -> int | None:
        """The bytes of an array with a size; None for any other type."""
        element, _, size = self.type.removeprefix("array<").removesuffix(">").partition(", ")
        width = {"vec2": 2, "vec4": 4}.get(element[:4], 1)
        return 4 * width * int(size) if size else None


@dataclass(frozen=True)
class KernelSpec:
    """A kernel before compilation.

    `name` is the kernel's own name and selects its NumPy reference; `label` names this instance in
    the browser's messages. `constants` are the shapes and switches compiled into `source`.
    The grid is `groups_x` workgroups wide, `groups_y` high and 1 deep, but along `token_axis` has a
    workgroup for every `tokens_per_group` tokens (0: whatever the tokens).
    """

    name: str
    label: str
    source: str
    bindings: tuple[Binding, ...]
    constants: Mapping[str, int | float | bool | str] = field(hash=False)
    groups_x: int
    tokens_per_group: int = 0
    groups_y: int = 1
    token_axis: int = 1

    def workgroups(self, n_tokens: int = 1) -> Workgroups:
        """Return the grid for `n_tokens` tokens."""
        grid = [self.groups_x, self.groups_y, 1]
        if self.tokens_per_group:
            grid[self.token_axis] = -(-n_tokens // self.tokens_per_group)
        return (grid[0], grid[1], grid[2])


class Buffer(Protocol):
    """Bytes on the GPU."""

    @property
    def label(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def destroy(self) -> None: ...


SLICE_ALIGNMENT = 256
"""Where slices of buffers may begin, in bytes, on every adapter."""


def slice_stride(nbytes: int) -> int:
    """Return the bytes from one slice of so many to the next."""
    return -(-nbytes // SLICE_ALIGNMENT) * SLICE_ALIGNMENT


@dataclass(frozen=True)
class BufferSlice:
    """`nbytes` bytes of a buffer from byte `offset` on, a multiple of SLICE_ALIGNMENT."""

    buffer: Buffer
    offset: int
    nbytes: int


class Kernel(Protocol):
    """A kernel that is compiled, or compiling."""

    @property
    def spec(self) -> KernelSpec: ...


@dataclass(frozen=True)
class Dispatch:
    """One kernel over its buffers, given in the order of `kernel.spec.bindings`."""

    kernel: Kernel
    buffers: tuple[Buffer | BufferSlice, ...]
    n_tokens: int = 1


class Program(Protocol):
    """A recorded list of dispatches, replayed in one compute pass and one submit."""

    def set_n_tokens(self, n_tokens: int) -> None:
        """Resize every grid that depends on the number of tokens."""
        ...

    def submit(self) -> None:
        """Replay the program; returns at once."""
        ...

    def submit_and_read(self, source: Buffer, offset: int) -> Awaitable[int]:
        """Replay the program; the awaitable gives the u32 at byte `offset` of `source` after it.

        Several may be in flight, and none waits for what is submitted after it. Raises
        DeviceLostError.
        """
        ...

    def submit_and_read_bytes(self, source: Buffer, offset: int, nbytes: int) -> Awaitable[bytes]:
        """Do the same for `nbytes` bytes, a multiple of 4."""
        ...


class Clock(Protocol):
    """Times programs on a GPU."""

    async def seconds(self, program: Program) -> float:
        """Return the seconds of one replay."""
        ...


class Device(Protocol):
    """A GPU device."""

    @property
    def info(self) -> AdapterInfo: ...
    @property
    def features(self) -> frozenset[str]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def memory(self) -> GpuMemory:
        """The buffers that were created and not destroyed yet."""
        ...

    @property
    def memory_limit(self) -> int | None:
        """The most bytes that all buffers may take together; None where that is not known."""
        ...

    def create_buffer(self, nbytes: int, label: str, *, is_uniform: bool = False) -> Buffer:
        """Allocate zeroed bytes (rounded up to a multiple of 16), for storage or for uniforms.

        Raises LimitSupportError for more than the adapter can bind, OutOfMemoryError beyond the
        `memory_limit`. Another failed allocation shows at the end of the surrounding `check`.
        """
        ...

    def write_buffer(
        self,
        buffer: Buffer,
        offset: int,
        data: Any,
        data_offset: int = 0,
        nbytes: int | None = None,
    ) -> None:
        """Copy host bytes into `buffer` at byte `offset` (a multiple of 4).

        `data` is a JS ArrayBuffer (which never passes through the wasm heap) or a Python object
        with the buffer protocol. A tail of 1 to 3 bytes is padded with zeros.
        """
        ...

    def clear_buffer(self, buffer: Buffer) -> None:
        """Fill a buffer with zeros."""
        ...

    def copy_buffer(
        self, source: Buffer, target: Buffer, nbytes: int, offset: int = 0, source_offset: int = 0
    ) -> None:
        """Copy `nbytes` of `source` from a byte on to byte `offset` of another buffer, `target`.

        All three are multiples of 4. It happens after all that was submitted before; both buffers
        may be destroyed at once.
        """
        ...

    async def read_buffer(
        self, buffer: Buffer, offset: int = 0, nbytes: int | None = None
    ) -> bytes:
        """Copy bytes back from the GPU; for tests and rare reads."""
        ...

    async def compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        """Compile kernels concurrently: `begin_compile`, then `wait_compiled`."""
        ...

    def begin_compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        """Begin to compile kernels, in this order; equal ones share a pipeline.

        Programs of them can be recorded at once, and submitted after `wait_compiled`.
        `on_progress(done, total)` counts pipelines. Raises LimitSupportError, DeviceLostError.
        """
        ...

    async def wait_compiled(self, kernels: Iterable[Kernel]) -> None:
        """Wait until programs of these kernels can be submitted.

        Raises ShaderCompilationError with the line as soon as one fails, and DeviceLostError, also
        when the device is destroyed meanwhile.
        """
        ...

    def program(self, dispatches: Sequence[Dispatch], label: str) -> Program:
        """Record a program: bind groups are made here, once."""
        ...

    def chain(self, programs: Sequence[Program], label: str) -> Program:
        """Join recorded programs into one, which shares their bind groups and grids."""
        ...

    def check(self, what: str) -> AbstractAsyncContextManager[None]:
        """Collect the GPU's errors inside the block and raise the first at its end.

        Raises OutOfMemoryError, ValidationError or DeviceLostError, naming `what`.
        """
        ...

    async def synchronize(self) -> None:
        """Wait until everything submitted has run."""
        ...

    async def wait_lost(self) -> str:
        """Wait until the device is lost; return the reason. `destroy` also ends the wait."""
        ...

    def destroy(self) -> None:
        """Free the device and all its buffers."""
        ...
