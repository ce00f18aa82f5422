"""`build.py bench --profile`: where the time of prefill and of decode goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py_engine.config import prebuilt_app_config
from py_engine.profile_trace import phases_of, trace_of
from py_engine.tooling.in_worker import page_of_site, run_in_worker

if TYPE_CHECKING:
    from playwright.sync_api import Page

_MEASURE = """
    const { py } = await boot();
    const globals = py.toPy({ model_id: argument });
    return JSON.parse(await py.runPythonAsync(`
import json
from py_engine.engine import create_mlc_engine

engine = await create_mlc_engine(model_id)
json.dumps((await engine.profile_kernels()).to_dict())
    `, { globals }));
"""


def main(site_folder: Path, *, as_json: bool, trace_file: Path | None) -> int:
    """Profile the embedded model of a built site; print tables, or JSON; write a trace."""
    with page_of_site(site_folder) as (page, url):
        profile = measure_profile(page, url)
    print(json.dumps(profile, indent=2) if as_json else "\n".join(tables(profile)))
    if trace_file is not None:
        trace_file.write_text(json.dumps(trace_of(profile)), encoding="utf-8")
    return 0


def measure_profile(page: Page, url: str) -> dict[str, Any]:
    """Load the embedded model in a new worker; return what its `profile_kernels` returns."""
    model_id = prebuilt_app_config.model_list[0].model_id
    profile: dict[str, Any]
    profile, _ = run_in_worker(page, url, _MEASURE, model_id)
    return profile


def tables(profile: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of a table for each phase, below what all have in common."""
    how = "the GPU's timestamps" if profile["has_timestamps"] else "the clock on the wall"
    where = f"{profile['model']} on {profile['adapter']}"
    yield f"{where}, by {how}"
    yield (
        f"copies {profile['copy_bytes_per_s'] / 1e9:.1f} GB/s (read + written), "
        f"reads {profile['read_bytes_per_s'] / 1e9:.1f} GB/s, "
        f"arithmetic {profile['operations_per_s'] / 1e9:.1f} Gop/s"
    )
    for title, phase in phases_of(profile):
        yield f"\n{title}"
        yield from _table(phase)


def _table(phase: Mapping[str, Any]) -> Iterator[str]:
    """Return the times of one dispatch and of all, and what they amount to."""
    yield (
        f"{'kernel':<12} {'shape':<22} {'n':>4} {'us':>9} {'all, ms':>9} {'share':>6}"
        f" {'bytes':>11} {'GB/s':>7} {'peak':>6} {'Gop/s':>8} {'peak':>6}"
    )
    kernels = phase["kernels"]
    total = sum(kernel["count"] * kernel["seconds"] for kernel in kernels)
    for kernel in kernels:
        yield _row(kernel, total)
    yield f"all of these {1e3 * total:.2f} ms, in one pass {1e3 * phase['seconds']:.2f} ms"


def _row(kernel: Mapping[str, Any], total: float) -> str:
    seconds, count = kernel["seconds"], kernel["count"]
    per_second = 1 / seconds / 1e9 if seconds else 0.0
    return (
        f"{kernel['kernel']:<12} {kernel['shape']:<22} {count:>4} {1e6 * seconds:>9.1f}"
        f" {1e3 * seconds * count:>9.3f} {seconds * count / total:>6.1%}"
        f" {kernel['nbytes']:>11,} {kernel['nbytes'] * per_second:>7.2f}"
        f" {kernel['bandwidth_fraction']:>6.1%} {kernel['operations'] * per_second:>8.2f}"
        f" {kernel['arithmetic_fraction']:>6.1%}"
    )
