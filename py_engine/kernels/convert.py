"""Conversion of 16-bit weights to f32 while they load."""

from __future__ import annotations

from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.wgsl import kernel_spec

_WORKGROUP = 256
_MAX_GROUPS_X = 65535


def convert_spec(source: Literal["f16", "bf16"], n: int) -> KernelSpec:
    """Build the kernel that widens `n` 16-bit values to f32.

    Shapes: source u32 (ceil(n / 2),), two values a word; output f32, room for 2 ceil(n / 2) values.
    """
    pairs = -(-n // 2)
    return kernel_spec(
        "convert",
        f"convert {source} x {n}",
        snippets=(f"convert_{source}", "convert"),
        bindings=(
            Binding("source", "read", f"array<u32, {pairs}>"),
            Binding("output", "read_write", f"array<vec2f, {pairs}>"),
        ),
        constants={"PAIRS": pairs, "WORKGROUP": _WORKGROUP, "source": source},
        groups_x=min(-(-pairs // _WORKGROUP), _MAX_GROUPS_X),
    )
