"""Times variants of decode's product at the shapes of a model's matrices, once they are right."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from py_engine.gpu.clock import GpuClock
from py_engine.gpu.types import Buffer, Dispatch, Kernel
from py_engine.kernels.formats import MATRIX_FORMATS
from py_engine.kernels.gemv import gemv
from py_engine.kernels.norm import Norm
from py_engine.kernels.tuning import Tuning, tuning_for
from py_engine.models.spec import DecoderSpec
from py_engine.tooling.gpu_bench.gemv_variants import EPSILON, Variant, gemv_variant
from py_engine.tooling.gpu_bench.random_data import RandomData

_TOLERANCE = {"storage": 1e-4, "staged": 1e-4, "packed": 2e-2}
_POISON = 1e30
_BATCH = 8


@dataclass(frozen=True)
class MatrixShape:
    """A matrix of a decode step; `norm` tells whether its input is normed first."""

    role: str
    rows: int
    columns: int
    norm: bool


def matrix_shapes(spec: DecoderSpec) -> list[MatrixShape]:
    """Return the matrices of one layer and the head."""
    hidden, inner = spec.hidden_size, spec.mlp.intermediate_size
    return [
        MatrixShape("qkv", sum(spec.heads.qkv_blocks), hidden, True),
        MatrixShape("output", hidden, spec.heads.width, False),
        MatrixShape("gate_up", 2 * inner, hidden, True),
        MatrixShape("down", hidden, inner, False),
        MatrixShape("head", spec.active_vocab_size, hidden, True),
    ]


class GemvSweep:
    """One matrix shape with enough copies of the weights that no cache holds them all."""

    def __init__(
        self, clock: GpuClock, data: RandomData, shape: MatrixShape, copy_bytes: int
    ) -> None:
        self._clock = clock
        self._device = clock.device
        self._shape = shape
        sizes = MATRIX_FORMATS["q4f16_1"].buffer_bytes(shape.rows, shape.columns)
        self._nbytes = sum(sizes.values())
        n_copies = max(2, min(64, math.ceil(copy_bytes / self._nbytes)))
        self._weights = [
            (
                data.buffer(sizes["weights"], f"weights {i}", "codes"),
                data.buffer(sizes["scales"], f"scales {i}", "scales"),
            )
            for i in range(n_copies)
        ]
        self._inputs = [data.buffer(4 * shape.columns, "x", "floats")]
        if shape.norm:
            self._inputs.append(data.buffer(4 * shape.columns, "norm", "floats"))
        self._output = self._device.create_buffer(4 * shape.rows, "output")

    def destroy(self) -> None:
        """Free the buffers."""
        for pair in self._weights:
            for buffer in pair:
                buffer.destroy()
        for buffer in (*self._inputs, self._output):
            buffer.destroy()

    async def run(self, chosen: Iterable[Variant], until: float) -> list[dict[str, Any]]:
        """Return a row for the plain form, the engine's, and each variant, the fastest first.

        What is not begun when `time.perf_counter()` is `until` is left out.
        """
        shape, device = self._shape, self._device
        lanes = device.info.subgroup_size_max
        assert lanes is not None, "the variants need subgroups"
        norm = Norm("rms", EPSILON) if shape.norm else None
        tunings = {"plain": Tuning(lanes), "engine": tuning_for(device.info, device.limits)}
        plain, engine = await device.compile(
            [
                gemv(name, "q4f16_1", shape.rows, shape.columns, norm=norm, tuning=tuning)
                for name, tuning in tunings.items()
            ]
        )
        self._expected = await self._result(plain)
        rows = [
            self._row("plain", 0.0, await self._seconds(plain)),
            await self._checked("engine", engine, _TOLERANCE["staged"]),
        ]
        most_bytes = device.limits.max_compute_workgroup_storage_size
        fitting = [each for each in chosen if each.fits(shape.columns, lanes, most_bytes)]
        # In batches: the driver compiles several at a time, and what is done is kept.
        for first in range(0, len(fitting), _BATCH):
            if time.perf_counter() > until:
                break
            batch = fitting[first : first + _BATCH]
            specs = [
                gemv_variant(variant, shape.rows, shape.columns, lanes, norm=shape.norm)
                for variant in batch
            ]
            kernels = await device.compile(specs)
            for variant, kernel in zip(batch, kernels, strict=True):
                rows.append(await self._checked(str(variant), kernel, _TOLERANCE[variant.input]))
        return sorted(rows, key=lambda row: float(row["us"]))

    async def _checked(self, variant: str, kernel: Kernel, tolerance: float) -> dict[str, Any]:
        """Return a variant's row: its time only if its output is the plain form's."""
        found = await self._result(kernel)
        error = math.dist(found, self._expected) / math.hypot(*self._expected)
        if not error < tolerance:
            return self._row(f"WRONG {variant}", error, math.inf)
        return self._row(variant, error, await self._seconds(kernel))

    def _row(self, name: str, error: float, seconds: float) -> dict[str, Any]:
        return {
            "variant": name,
            "error": error,
            "us": 1e6 * seconds,
            "GB_per_s": self._nbytes / seconds / 1e9,
        }

    def _dispatch(self, kernel: Kernel, pair: tuple[Buffer, Buffer]) -> Dispatch:
        return Dispatch(kernel, (*pair, *self._inputs, self._output))

    async def _result(self, kernel: Kernel) -> array[float]:
        poison = array("f", [_POISON]) * self._shape.rows
        self._device.write_buffer(self._output, 0, poison)
        self._device.program([self._dispatch(kernel, self._weights[0])], "check").submit()
        found = array("f")
        found.frombytes(await self._device.read_buffer(self._output, 0, 4 * self._shape.rows))
        return found

    async def _seconds(self, kernel: Kernel) -> float:
        dispatches = [self._dispatch(kernel, pair) for pair in self._weights]
        program = self._device.program(dispatches, kernel.spec.label)
        return await self._clock.seconds(program) / len(dispatches)
