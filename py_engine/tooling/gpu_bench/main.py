"""The measurements in the order of their importance."""

from __future__ import annotations

import argparse
import math
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from py_engine.gpu.adapter import request_device
from py_engine.gpu.clock import GpuClock
from py_engine.gpu.webgpu import WebGPUDevice
from py_engine.kernels.forms import AttentionTile, GemmTile, GemvForm, GemvForms, SplitKeys
from py_engine.kernels.tuning import Tuning, tuning_for
from py_engine.models.registry import decoder_spec
from py_engine.tooling.gpu_bench.basics import measure_copy, measure_dispatches, measure_read
from py_engine.tooling.gpu_bench.decoding import (
    logits_at,
    measure_decode,
    measure_kernels,
    measure_prefill,
    measure_prefill_kernels,
)
from py_engine.tooling.gpu_bench.gemm_sweep import GemmSweep
from py_engine.tooling.gpu_bench.gemv_sweep import GemvSweep, MatrixShape, matrix_shapes
from py_engine.tooling.gpu_bench.gemv_variants import Variant, variants
from py_engine.tooling.gpu_bench.random_data import RandomData
from py_engine.tooling.gpu_bench.random_model import RandomModel, model_config, random_model
from py_engine.tooling.gpu_bench.report import Report, table

_SHOWN = 12
"""Variants that are printed; the file of figures has all."""

# Every path of the variants, in workgroups that a CPU compiles soon.
TINY_VARIANTS = (
    Variant(1, 16),
    Variant(2, 16, 2),
    Variant(4, 16, unroll=2),
    Variant(8, 16, math="sums"),
    Variant(2, 16, input="staged"),
    Variant(2, 16, 4, 2, "staged", "sums"),
    Variant(2, 16, input="packed"),
    Variant(2, 16, 2, 2, "packed"),
)

TINY_TUNING = Tuning(
    attention_tile=AttentionTile(64),
    split_keys=SplitKeys(workgroup=32, workgroups=12, least_keys=8, alone_keys=32),
    gemv=GemvForms(
        wide=GemvForm(4, 32, unroll=2, staged=True),
        narrow=GemvForm(2, 32, unroll=2, staged=True),
        deep=GemvForm(4, 16, split=4),
        wide_rows=512,
        deep_ratio=2,
    ),
)
"""The same forms as an H200's, for subgroups of 4."""

F16_TILES = ((8192, GemmTile(128, 64, 32, "float16")), (0, GemmTile(64, 64, 32, "float16")))
"""An H200's tiles, in f16."""

TINY_INT8 = GemvForms.only(GemvForm(8, 32, staged=True, int8=True))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_bench")
    parser.add_argument("parts", nargs="+", help="basics, or model=, gemv= or gemm=NAME")
    parser.add_argument("--budget", type=float, default=240, help="seconds")
    parser.add_argument("--json", default="gpu_bench.json", help="file of the figures, in /out")
    parser.add_argument("--tiny", action="store_true", help="little work, for a CPU")
    return parser.parse_args(arguments)


class Bench:
    """One run: a device, its clock, and the report."""

    def __init__(self, device: WebGPUDevice, data: RandomData, report: Report, tiny: bool) -> None:
        self.device = device
        self.data = data
        self.report = report
        self.clock = GpuClock(device, 0.001 if tiny else 0.01)
        self.positions = (16, 64) if tiny else (128, 1024, 4096)
        self.gemv_variants = TINY_VARIANTS if tiny else [*variants()]
        tuned = tuning_for(device.info, device.limits)
        self.tuned = replace(TINY_TUNING, lanes=tuned.lanes) if tiny else tuned
        int8 = tuning_for(device.info, device.limits, activation_dtype="int8")
        self.int8 = replace(self.tuned, gemv=TINY_INT8) if tiny else int8
        self.sweep_s = 100.0 if tiny else 30.0
        self.n_tokens = 4 if tiny else 32
        self.prompts = (32, 64) if tiny else (512, 2048)
        self.large = (16 << 20) if tiny else (1 << 30)

    async def basics(self, name: str = "") -> None:
        """Measure what does not depend on the engine."""
        measure = self.report.measure
        table([await measure("copy", lambda: measure_copy(self.clock, self.large)) or {}])
        table(await measure("read", lambda: measure_read(self.clock, self.data, self.large)) or [])
        _lines(await measure("dispatches", lambda: measure_dispatches(self.clock)))

    async def model(self, name: str) -> None:
        """Measure a model's kernels and decode, in plain forms, as tuned, and with x in 8 bits.

        Prefill is measured as tuned, where it is the same in 8 bits, and in f16.
        """
        plain = Tuning(self.device.info.subgroup_size_max)
        forms = {"plain": plain, "tuned": self.tuned, "int8": self.int8}
        if self.device.info.has_f16:
            forms["float16"] = replace(self.tuned, gemm_tiles=F16_TILES)
        decodes: dict[str, dict[int, dict[str, float]]] = {}
        logits: dict[str, array[float]] = {}
        for form, tuning in forms.items():
            title = f"{name} {form}"
            started, before = time.perf_counter(), self.device.memory.nbytes
            try:
                model = await random_model(self.device, model_config(name), self.data, tuning)
            except Exception as error:
                self.report.say(f"{title} FAILED to load: {error}"[:600])
                return
            await self.device.synchronize()
            loaded = {"load_s": time.perf_counter() - started}
            loaded["gpu_bytes"] = self.device.memory.nbytes - before
            self.report.keep(f"{title} load", loaded)
            self.report.say(f"{title}: {loaded}")
            try:
                if form != "float16":
                    logits[form] = array("f")
                    for position in self.positions:  # in steps of every kind
                        logits[form].extend(await logits_at(model, self.data, position))
                    await self._kernels(title, model)
                    decodes[form] = await self._decode(title, model)
                if form in ("tuned", "float16"):
                    await self._prefill(title, model)
            finally:
                model.decoder.destroy()
        for form in ("tuned", "int8"):
            if logits["plain"]:
                right = logits["plain"]
                difference = math.dist(right, logits[form]) / math.hypot(*right)
                self.report.say(f"{name}: {form} logits differ by {difference:.3g}")
                self.report.keep(f"{name} {form} logits", {"error": difference})
            self._compare(f"{name}: {form} over plain", decodes["plain"], decodes[form])

    def _compare(
        self,
        title: str,
        plain: dict[int, dict[str, float]],
        tuned: dict[int, dict[str, float]],
    ) -> None:
        """Print tokens per second in other forms over those in the plain ones."""
        rows = [
            {
                "position": str(position),
                **{
                    figure: tuned[position][figure] / plain[position][figure]
                    for figure in plain[position]
                    if "tokens_per_s" in figure
                },
            }
            for position in sorted(plain.keys() & tuned.keys())
        ]
        self.report.say(title)
        self.report.keep(title, rows)
        table(rows)

    async def _decode(self, title: str, model: RandomModel) -> dict[int, dict[str, float]]:
        found = {}
        for position in self.positions:
            figures = await self.report.measure(
                f"{title} decode at {position}",
                partial(measure_decode, self.clock, self.data, model, position, self.n_tokens),
            )
            if figures:
                found[position] = figures
        _transposed([*found.values()])
        return found

    async def _kernels(self, title: str, model: RandomModel) -> None:
        for position in self.positions[:2]:
            table(
                await self.report.measure(
                    f"{title} kernels at {position}",
                    partial(measure_kernels, self.clock, self.data, model, position),
                )
                or []
            )

    async def _prefill(self, name: str, model: RandomModel) -> None:
        rows = []
        for n_tokens in self.prompts:
            figures = await self.report.measure(
                f"{name} prefill of {n_tokens}",
                partial(measure_prefill, model, n_tokens),
            )
            if figures:
                rows.append(figures)
        table(rows)
        n_tokens = min(self.prompts[0], model.decoder.prefill_chunk_size)
        table(
            await self.report.measure(
                f"{name} kernels of a prefill of {n_tokens}",
                lambda: measure_prefill_kernels(self.clock, model, n_tokens),
            )
            or []
        )

    def _until(self) -> float:
        """Return when a sweep has to end."""
        return time.perf_counter() + min(self.sweep_s, self.report.left_s - 3)

    async def gemvs(self, name: str) -> None:
        """Sweep over variants of decode's products at a model's shapes."""
        for shape in matrix_shapes(decoder_spec(model_config(name))):

            async def sweep(shape: MatrixShape = shape) -> Any:
                found = GemvSweep(self.clock, self.data, shape, self.large // 4)
                try:
                    return await found.run(self.gemv_variants, self._until())
                finally:
                    found.destroy()

            title = f"{name} GEMV {shape.role} {shape.rows}x{shape.columns}"
            rows = await self.report.measure(title, sweep, 2 * self.sweep_s) or []
            ours = ("plain", "engine")
            table([row for i, row in enumerate(rows) if i < _SHOWN or row["variant"] in ours])

    async def gemms(self, name: str) -> None:
        """Compare the forms of prefill's products at a model's shapes, all in one sweep's time."""
        until = self._until()
        for shape in matrix_shapes(decoder_spec(model_config(name))):
            if shape.role == "head":
                continue  # of a prompt only the last token goes through it

            async def sweep(shape: MatrixShape = shape) -> Any:
                found = GemmSweep(self.clock, self.data, shape, self.prompts[0])
                try:
                    return await found.run(until)
                finally:
                    found.destroy()

            title = f"{name} GEMM {shape.role} {shape.rows}x{shape.columns}"
            table(await self.report.measure(title, sweep, 2 * self.sweep_s) or [])


def _lines(figures: dict[str, Any] | None) -> None:
    for name, value in (figures or {}).items():
        print(f"    {name:<28} {value:.4g}")


def _transposed(rows: list[dict[str, Any]]) -> None:
    """Print figures of several positions with a line for each figure."""
    if rows:
        table(
            [
                {"": name, **{f"at {row['position']}": float(row[name]) for row in rows}}
                for name in rows[0]
                if name != "position"
            ]
        )


async def run(arguments: Sequence[str]) -> None:
    """Measure the parts in their order as far as the time allows."""
    options = _options([str(argument) for argument in arguments])
    report = Report(Path("/out") / options.json, options.budget)
    device = await request_device()
    report.say(f"{device.info!r} {device.limits} {sorted(device.features)}")
    report.keep("adapter", {"info": repr(device.info), "limits": repr(device.limits)})
    bench = Bench(device, await RandomData.compiled(device), report, options.tiny)
    runs: dict[str, Callable[[str], Awaitable[None]]] = {
        "basics": bench.basics,
        "model": bench.model,
        "gemv": bench.gemvs,
        "gemm": bench.gemms,
    }
    for part in options.parts:
        kind, _, name = part.partition("=")
        await runs[kind](name)
