"""Times the forms of prefill's product at the shapes of a model's matrices, once they are right."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Mapping
from typing import Any

from py_engine.gpu.clock import GpuClock
from py_engine.gpu.types import AdapterInfo, Buffer, Dispatch, Kernel
from py_engine.kernels.formats import MATRIX_FORMATS
from py_engine.kernels.forms import GemmTile
from py_engine.kernels.gemm import gemm
from py_engine.kernels.tuning import PLAIN, Tuning
from py_engine.tooling.gpu_bench.gemv_sweep import MatrixShape
from py_engine.tooling.gpu_bench.random_data import RandomData

GEMM_TILES = (
    GemmTile(64, 64, 32),
    GemmTile(64, 64, 16),
    GemmTile(128, 64, 16),
    GemmTile(64, 128, 16),
    GemmTile(128, 128, 16),
    GemmTile(64, 64, 32, "float16"),
    GemmTile(128, 64, 32, "float16"),
    GemmTile(64, 128, 32, "float16"),
    GemmTile(64, 64, 64, "int8"),
    GemmTile(128, 64, 64, "int8"),
    GemmTile(64, 64, 32, "int8"),
)
_TOLERANCES = {"float32": 1e-4, "float16": 3e-3, "int8": 2e-2}
_POISON = 1e30


class GemmSweep:
    """One matrix shape and a chunk of `n_tokens` tokens."""

    def __init__(
        self, clock: GpuClock, data: RandomData, shape: MatrixShape, n_tokens: int
    ) -> None:
        self._clock = clock
        self._device = clock.device
        self._shape = shape
        self._n_tokens = n_tokens
        sizes = MATRIX_FORMATS["q4f16_1"].buffer_bytes(shape.rows, shape.columns)
        self._buffers: dict[str, Buffer] = {
            "weights": data.buffer(sizes["weights"], "weights", "codes"),
            "scales": data.buffer(sizes["scales"], "scales", "scales"),
            "x": data.buffer(4 * n_tokens * shape.columns, "x", "floats"),
            "state": self._device.create_buffer(16, "state"),
            "output": self._device.create_buffer(4 * n_tokens * shape.rows, "output"),
        }
        self._device.write_buffer(self._buffers["state"], 0, array("I", [0, n_tokens, 0, 0]))

    def destroy(self) -> None:
        """Free the buffers."""
        for buffer in self._buffers.values():
            buffer.destroy()

    async def run(self, until: float) -> list[dict[str, Any]]:
        """Return a row for each form, in the order of `_forms`.

        What is not begun when `time.perf_counter()` is `until` is left out.
        """
        shape, expected = self._shape, array("f")
        rows = []
        for name, tuning in _forms(self._device.info).items():
            if time.perf_counter() > until:
                break
            spec = gemm(name, "q4f16_1", shape.rows, shape.columns, self._n_tokens, tuning=tuning)
            (kernel,) = await self._device.compile([spec])
            found = await self._result(kernel)
            expected = expected or found
            error = math.dist(found, expected) / math.hypot(*expected)
            if error < _TOLERANCES[str(spec.constants["activation_dtype"])]:
                rows.append(self._row(name, error, await self._seconds(kernel)))
            else:
                rows.append(self._row(f"WRONG {name}", error, math.inf))
        return rows

    def _row(self, name: str, error: float, seconds: float) -> dict[str, Any]:
        flops = 2.0 * self._shape.rows * self._shape.columns * self._n_tokens
        return {
            "form": name,
            "error": error,
            "us": 1e6 * seconds,
            "TFLOP_per_s": flops / seconds / 1e12,
        }

    def _dispatch(self, kernel: Kernel) -> Dispatch:
        buffers = tuple(self._buffers[binding.name] for binding in kernel.spec.bindings)
        return Dispatch(kernel, buffers, self._n_tokens)

    async def _result(self, kernel: Kernel) -> array[float]:
        """Return the outputs of the first and the last token: all of them take long to compare."""
        output, width = self._buffers["output"], 4 * self._shape.rows
        places = (0, output.nbytes - width)
        for at in places:
            self._device.write_buffer(output, at, array("f", [_POISON]) * self._shape.rows)
        self._device.program([self._dispatch(kernel)], "check").submit()
        found = array("f")
        for at in places:
            found.frombytes(await self._device.read_buffer(output, at, width))
        return found

    async def _seconds(self, kernel: Kernel) -> float:
        program = self._device.program([self._dispatch(kernel)], kernel.spec.label)
        return await self._clock.seconds(program, rounds=2)


def _forms(info: AdapterInfo) -> Mapping[str, Tuning]:
    """Return the forms by name: first what the others are checked against."""
    lanes = info.subgroup_size_max
    subgroups = {} if lanes is None else {"subgroup": Tuning(lanes)}
    tiles = {
        f"tile {tile.rows}x{tile.tokens}x{tile.columns} {tile.activation_dtype}": Tuning(
            gemm_tiles=((0, tile),)
        )
        for tile in GEMM_TILES
        if info.has_f16 or tile.activation_dtype != "float16"
    }
    return {**subgroups, "workgroup": PLAIN, **tiles}
