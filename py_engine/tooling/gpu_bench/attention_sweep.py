"""Times decode's attention, the engine's and split-KV, over contexts, once the latter is right."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from py_engine.gpu.types import Buffer, Dispatch, Kernel
from py_engine.kernels.attention import attention_decode
from py_engine.kernels.attention_shape import AttentionShape, rope_table
from py_engine.tooling.gpu_bench.attention_variants import SplitVariant, attention_split
from py_engine.tooling.gpu_bench.clock import GpuClock
from py_engine.tooling.gpu_bench.random_data import RandomData

SPLIT_VARIANTS = [
    SplitVariant(1),
    SplitVariant(1, 128),
    SplitVariant(1, 256),
    *(SplitVariant(splits, threads) for splits in (4, 8, 16, 32, 64) for threads in (64, 128, 256)),
    *(SplitVariant(splits, 64, 64) for splits in (16, 32, 64)),
]
_LAYERS = 8
_TOLERANCE = 1e-3
_POISON = 1e30


class AttentionSweep:
    """One shape over the caches of several layers."""

    def __init__(self, clock: GpuClock, data: RandomData, shape: AttentionShape) -> None:
        self._clock = clock
        self._device = clock.device
        self._shape = shape
        table = rope_table([10000.0 ** (-i / 32) for i in range(shape.rotated // 2)], shape.context)
        rope = self._device.create_buffer(4 * len(table), "rope")
        self._device.write_buffer(rope, 0, table)
        splits = max(variant.splits for variant in SPLIT_VARIANTS)
        parts = 4 * shape.n_heads * splits
        self._buffers: dict[str, Buffer] = {
            "qkv": data.buffer(4 * shape.qkv_heads * shape.head_dim, "qkv", "floats"),
            "rope": rope,
            "state": self._device.create_buffer(16, "state"),
            "output": self._device.create_buffer(4 * shape.n_heads * shape.head_dim, "output"),
            "split_sums": self._device.create_buffer(parts * shape.head_dim, "split_sums"),
            "split_softmax": self._device.create_buffer(2 * parts, "split_softmax"),
        }
        self._caches = [
            {
                name: data.buffer(shape.cache_bytes, f"{name} {i}", "halfs")
                for name in ("k_cache", "v_cache")
            }
            for i in range(_LAYERS)
        ]

    def destroy(self) -> None:
        """Free the buffers."""
        for buffers in (self._buffers, *self._caches):
            for buffer in buffers.values():
                buffer.destroy()

    async def run(
        self, chosen: Iterable[SplitVariant], contexts: Sequence[int], until: float
    ) -> list[dict[str, Any]]:
        """Return a row for the engine's kernel and for each variant, with us by context.

        What is not begun when `time.perf_counter()` is `until` is left out.
        """
        device, shape = self._device, self._shape
        lanes = device.info.subgroup_size_max
        assert lanes is not None, "the variants need subgroups"
        most = device.limits.max_compute_workgroup_storage_size
        engine = await device.compile([attention_decode("engine", shape)])
        expected: list[array[float]] = []
        row: dict[str, Any] = {"variant": "engine"}
        for context in contexts:
            expected.append(await self._result(engine, context))
            row[f"us at {context}"] = await self._us(engine)
        rows = [row]
        for variant in chosen:
            if not variant.fits(shape, most) or time.perf_counter() > until:
                continue
            kernels = await device.compile(attention_split(shape, variant, lanes))
            row = {"variant": str(variant)}
            for context, right in zip(contexts, expected, strict=True):
                found = await self._result(kernels, context)
                error = math.dist(found, right) / math.hypot(*right)
                row[f"us at {context}"] = (
                    await self._us(kernels) if error < _TOLERANCE else f"WRONG {error:.2g}"
                )
            rows.append(row)
        return rows

    def _dispatches(self, kernels: Sequence[Kernel], layer: int) -> list[Dispatch]:
        buffers = self._buffers | self._caches[layer]
        return [
            Dispatch(kernel, tuple(buffers[binding.name] for binding in kernel.spec.bindings))
            for kernel in kernels
        ]

    async def _result(self, kernels: Sequence[Kernel], context: int) -> array[float]:
        """Return the output with so many keys, this token's included."""
        state = array("I", [context - 1, 1, 0, 0])
        self._device.write_buffer(self._buffers["state"], 0, state)
        output = self._buffers["output"]
        self._device.write_buffer(output, 0, array("f", [_POISON]) * (output.nbytes // 4))
        self._device.program(self._dispatches(kernels, 0), "check").submit()
        found = array("f")
        found.frombytes(await self._device.read_buffer(output))
        return found

    async def _us(self, kernels: Sequence[Kernel]) -> float:
        dispatches = [
            dispatch for layer in range(_LAYERS) for dispatch in self._dispatches(kernels, layer)
        ]
        program = self._device.program(dispatches, kernels[0].spec.label)
        return 1e6 * await self._clock.seconds(program) / _LAYERS
