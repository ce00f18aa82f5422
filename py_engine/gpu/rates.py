"""What an adapter can do at the most, measured: bytes a second, additions and multiplications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Binding, Buffer, Clock, Device, Dispatch, KernelSpec

MEASURED_BYTES = 64 << 20
"""Size of each of two buffers; together they are more than the last cache of most GPUs."""

_LEAST_BYTES = 1 << 20
_SHORT_READ = 4 << 20  # is long enough for adapters that are slow, where caches do not matter
_READ_WORKGROUP, _LOADS = 256, 16

_READ = """
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let stride = groups.x * WORKGROUP;
  var a = vec4u();
  var b = vec4u();
  for (var i = id.x; i < SIZE; i += 4u * stride) {
    a ^= words[i] ^ words[min(i + stride, SIZE - 1u)];
    b ^= words[min(i + 2u * stride, SIZE - 1u)] ^ words[min(i + 3u * stride, SIZE - 1u)];
  }
  let sum = a ^ b;
  // Never true of what was read, but the compiler does not know.
  if ((sum.x | sum.y | sum.z | sum.w) == 1u) { output[0] = sum.x; }
}
"""

_TURNS, _ADD_WORKGROUP = 256, 64
_OPERATIONS = _TURNS * 4 * 4 * 2  # of a thread: four vectors of four, a product and a sum
_GRIDS = (64, 1024, 16384)
_LONG_ENOUGH_S = 1e-3

_MULTIPLY_ADD = """
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  // Buffers begin with zeros, but the compiler does not know.
  let factor = values[0] + 0.5;
  let term = values[0] + 0.25;
  var a = vec4f(f32(id.x));
  var b = a + 1.0;
  var c = a + 2.0;
  var d = a + 3.0;
  for (var i = 0u; i < TURNS; i++) {
    a = a * factor + term;
    b = b * factor + term;
    c = c * factor + term;
    d = d * factor + term;
  }
  let sum = a + b + c + d;
  if (sum.x + sum.y + sum.z + sum.w == -1.0) { output[0] = sum.x; }
}
"""


class RatesClock(Clock, Protocol):
    """Times copies as well."""

    async def copy_seconds(self, source: Buffer, target: Buffer) -> float:
        """Return the seconds of one copy of all of `source`."""
        ...


@dataclass(frozen=True)
class Rates:
    """Per second: bytes that copies read and write, bytes that a kernel reads, operations in f32.

    An operation is an addition or a multiplication.
    """

    copy_bytes_per_s: float
    read_bytes_per_s: float
    operations_per_s: float

    @property
    def bytes_per_s(self) -> float:
        """The bandwidth: on some adapters kernels are faster than copies, on others slower."""
        return max(self.copy_bytes_per_s, self.read_bytes_per_s)


async def measure_rates(device: Device, clock: RatesClock) -> Rates:
    """Measure an adapter; takes two large buffers meanwhile.

    Raises OutOfMemoryError where there is no room for them, DeviceLostError, and
    ShaderCompilationError.
    """
    nbytes = _room(device)
    made: list[Buffer] = []
    try:
        async with device.check("measuring the adapter"):
            for name, size in (("from", nbytes), ("to", nbytes), ("output", 16)):
                made.append(device.create_buffer(size, name))
        source, target, output = made
        copied = 2 * nbytes / await clock.copy_seconds(source, target)
        read = await _read_bytes_per_s(device, clock, (source, target), output)
        operations = await _operations_per_s(device, clock, source, output)
        return Rates(copied, read, operations)
    finally:
        destroy_buffers(made)


async def copy_bytes_per_s(device: Device, clock: RatesClock, nbytes: int) -> float:
    """Measure buffer copies alone: bytes read plus bytes written, with buffers of `nbytes`."""
    source, target = (device.create_buffer(nbytes, name) for name in ("from", "to"))
    try:
        return 2 * nbytes / await clock.copy_seconds(source, target)
    finally:
        source.destroy()
        target.destroy()


def read_kernel(nbytes: int, workgroup: int, groups: int) -> KernelSpec:
    """Build a kernel that reads `words`, 16 bytes a load, and writes nothing to `output`."""
    bindings = (
        Binding("words", "read", f"array<vec4u, {nbytes // 16}>"),
        Binding("output", "read_write", "array<u32, 4>"),
    )
    constants = {"WORKGROUP": workgroup, "SIZE": nbytes // 16}
    return _kernel("read", _READ, bindings, constants, groups)


async def _read_bytes_per_s(
    device: Device, clock: Clock, sources: tuple[Buffer, ...], output: Buffer
) -> float:
    """Read some of each buffer, then all of it unless that took long enough."""
    rate = 0.0
    for nbytes in (min(_SHORT_READ, sources[0].nbytes), sources[0].nbytes):
        groups = max(1, nbytes // (16 * _READ_WORKGROUP * _LOADS))
        (kernel,) = await device.compile([read_kernel(nbytes, _READ_WORKGROUP, groups)])
        # One buffer after the other, so that none is still in a cache.
        reads = [Dispatch(kernel, (buffer, output)) for buffer in sources]
        seconds = await clock.seconds(device.program(reads, kernel.spec.label))
        rate = len(sources) * nbytes / seconds
        if seconds > _LONG_ENOUGH_S:
            break
    return rate


async def _operations_per_s(device: Device, clock: Clock, values: Buffer, output: Buffer) -> float:
    """Multiply and add, in larger grids until one takes long enough; return the best."""
    bindings = (
        Binding("values", "read", "array<vec4f, 4>"),
        Binding("output", "read_write", "array<f32, 4>"),
    )
    constants = {"WORKGROUP": _ADD_WORKGROUP, "TURNS": _TURNS}
    best = 0.0
    for groups in _GRIDS:
        spec = _kernel("multiply_add", _MULTIPLY_ADD, bindings, constants, groups)
        (kernel,) = await device.compile([spec])
        program = device.program([Dispatch(kernel, (values, output))], spec.label)
        seconds = await clock.seconds(program)
        best = max(best, groups * _ADD_WORKGROUP * _OPERATIONS / seconds)
        if seconds > _LONG_ENOUGH_S:
            break
    return best


def _kernel(
    name: str, wgsl: str, bindings: tuple[Binding, ...], constants: dict[str, int], groups: int
) -> KernelSpec:
    lines = [f"const {constant} = {value}u;" for constant, value in constants.items()]
    lines += [
        f"@group(0) @binding({i}) var<storage, {binding.access}> {binding.name}: {binding.type};"
        for i, binding in enumerate(bindings)
    ]
    return KernelSpec(name, name, "\n".join([*lines, wgsl]), bindings, dict(constants), groups)


def _room(device: Device) -> int:
    """Return the bytes that each of two buffers can have."""
    limits, limit = device.limits, device.memory_limit
    free = MEASURED_BYTES if limit is None else (limit - device.memory.nbytes) // 3
    sizes = (free, limits.max_storage_buffer_binding_size, limits.max_buffer_size)
    return max(_LEAST_BYTES, min(MEASURED_BYTES, *sizes) // 16 * 16)
