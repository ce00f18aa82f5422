"""Halfs as adapters on the CPU unpack them, against NumPy: every one of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from py_engine.gpu.types import Binding
from py_engine.kernels.wgsl import kernel_spec
from tests.kernels.cases import RunKernel, padded, poisoned

N_PAIRS = 1 << 15
MAIN = """
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) { output[id.x] = unpack_pair(pairs[id.x]); }
"""


def test_every_half_is_unpacked_by_masks(run_kernel: RunKernel) -> None:
    spec = kernel_spec(
        "halfs",
        "halfs under test",
        snippets=("halfs_masked",),
        bindings=(
            Binding("pairs", "read", f"array<u32, {N_PAIRS}>"),
            Binding("output", "read_write", f"array<vec2f, {N_PAIRS}>"),
        ),
        constants={},
        groups_x=N_PAIRS // 64,
    )
    spec = replace(spec, source=spec.source + MAIN)
    halfs = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    for order in (halfs, halfs[::-1].copy()):  # each of them low, and high
        buffers = {"pairs": padded(order.view(np.uint32)), "output": padded(poisoned(1 << 16))}
        written = run_kernel(spec, buffers, 1)["output"]
        found = np.frombuffer(written, np.float32)[: 1 << 16]
        expected = order.view(np.float16).astype(np.float32)
        is_normal = np.isfinite(expected) & (np.abs(expected) >= 2.0**-14)
        np.testing.assert_array_equal(found[is_normal], expected[is_normal])
        is_small = np.abs(expected) < 2.0**-14
        assert np.isin(found[is_small] / np.where(expected, expected, 1)[is_small], (0, 1)).all()
        assert np.abs(found[~(is_normal | is_small)]).min() >= 65536
