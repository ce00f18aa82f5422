"""Random contents of buffers, made on the GPU: hashes of the words' numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from py_engine.gpu.types import Binding, Buffer, Device, Dispatch, Kernel, KernelSpec
from py_engine.kernels.wgsl import kernel_spec

Kind = Literal["codes", "scales", "halfs", "floats", "ones", "small"]
"""codes: any bits. scales: f16 of 0.008 to 0.016, with either sign. halfs: f16 of 0.25 to 0.5, with
either sign. floats: f32 of 0.5 to 1, with either sign. ones, small: f32 of 1 and of 0.01."""

_BITS: Mapping[Kind, tuple[int, int]] = {  # the random bits, and those that are set in all words
    "codes": (0xFFFFFFFF, 0),
    "scales": (0x83FF83FF, 0x20002000),
    "halfs": (0x83FF83FF, 0x34003400),
    "floats": (0x807FFFFF, 0x3F000000),
    "ones": (0, 0x3F800000),
    "small": (0, 0x3C23D70A),
}
_WORKGROUP = 256
_MAX_GROUPS = 4096
_FILL = """
@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var i = id.x; i < arrayLength(&words); i += groups.x * WORKGROUP) {
    // PCG (Jarzynski and Olano 2020).
    let state = i * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    words[i] = (((word >> 22u) ^ word) & RANDOM_BITS) | SET_BITS;
  }
}
"""


class RandomData:
    """Fills buffers of one device."""

    def __init__(self, device: Device, kernels: Mapping[Kind, Kernel]) -> None:
        self._device = device
        self._kernels = kernels

    @classmethod
    async def compiled(cls, device: Device) -> RandomData:
        """Return it with its kernels compiled."""
        compiled = await device.compile([_fill(kind) for kind in _BITS])
        return cls(device, dict(zip(_BITS, compiled, strict=True)))

    def fill(self, buffer: Buffer, kind: Kind) -> None:
        """Fill a buffer; returns at once."""
        dispatch = Dispatch(self._kernels[kind], (buffer,))
        self._device.program([dispatch], f"fill {buffer.label}").submit()

    def buffer(self, nbytes: int, label: str, kind: Kind) -> Buffer:
        """Return a new filled buffer."""
        made = self._device.create_buffer(nbytes, label)
        self.fill(made, kind)
        return made


def weight_kind(name: str) -> Kind:
    """Return what a decoder's weights of this buffer's name shall be."""
    for ending, kind in _WEIGHT_KINDS.items():
        if name.endswith(ending):
            return kind
    return "ones"


_WEIGHT_KINDS: Mapping[str, Kind] = {".weights": "codes", ".scales": "scales", ".bias": "small"}


def _fill(kind: Kind) -> KernelSpec:
    random_bits, set_bits = _BITS[kind]
    spec = kernel_spec(
        "fill",
        f"fill {kind}",
        snippets=(),
        bindings=(Binding("words", "read_write", "array<u32>"),),
        constants={"WORKGROUP": _WORKGROUP, "RANDOM_BITS": random_bits, "SET_BITS": set_bits},
        groups_x=_MAX_GROUPS,
    )
    return with_source(spec, _FILL)


def with_source(spec: KernelSpec, wgsl: str) -> KernelSpec:
    """Return a kernel with more WGSL after its own."""
    return KernelSpec(
        spec.name,
        spec.label,
        f"{spec.source}\n{wgsl}",
        spec.bindings,
        spec.constants,
        spec.groups_x,
        spec.tokens_per_group,
        spec.groups_y,
    )
