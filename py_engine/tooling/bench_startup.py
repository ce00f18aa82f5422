"""`build.py bench --startup`: what happens when between a new worker and the first token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py_engine.config import prebuilt_app_config
from py_engine.tooling.chromium import launch
from py_engine.tooling.in_worker import run_in_worker
from py_engine.tooling.server import SiteServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

VISITS = ("first visit, nothing stored", "second visit, files and model stored")
_BAR = 48
_WORKER_SOURCE = Path(__file__).with_name("bench_startup_worker.py")

_MEASURE = """
    performance.setResourceTimingBufferSize(1000);
    const { py } = await boot();
    const booted = performance.now();
    const globals = py.toPy({});
    await py.runPythonAsync(argument.source, { globals });
    const phases = JSON.parse(await globals.get('load_and_ask')(argument.model));
    const files = performance.getEntriesByType('resource').map(
        ({ name, startTime, responseEnd }) => [name, startTime, responseEnd]);
    return { booted, phases, files };
"""


@dataclass(frozen=True)
class Span:
    """Something that took place, in seconds since the worker was made."""

    name: str
    begin_s: float
    end_s: float


def main(site_folder: Path, *, as_json: bool) -> int:
    """Measure a built site's start with the embedded model; print waterfalls, or JSON."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, SiteServer(site_folder) as server:
        browser, adapter = launch(playwright)
        visits = dict(zip(VISITS, measure_startup(browser, server.url), strict=True))
        browser.close()
    if as_json:
        found = {visit: [asdict(span) for span in spans] for visit, spans in visits.items()}
        print(json.dumps(found, indent=2))
        return 0
    print(f"on {adapter}")
    for visit, spans in visits.items():
        print("\n".join(("", visit, *waterfall(spans))))
    return 0


def measure_startup(browser: Browser, url: str) -> list[list[Span]]:
    """Return the spans of a first and of a second visit to the site at `url`."""
    context = browser.new_context()  # with an empty cache and storage
    page = context.new_page()
    page.goto(f"{url}/build.json")
    argument = {
        "source": _WORKER_SOURCE.read_text(encoding="utf-8"),
        "model": prebuilt_app_config.model_list[0].model_id,
    }
    visits = []
    for _ in VISITS:
        found, _ = run_in_worker(page, url, _MEASURE, argument)
        visits.append(list(_spans(found)))
    context.close()
    return visits


def _spans(found: dict[str, Any]) -> Iterator[Span]:
    booted, files = found["booted"], found["files"]
    of_runtime = [file for file in files if file[1] < booted and "/models/" not in file[0]]
    of_model = [file for file in files if "/models/" in file[0]]
    later = [file for file in files if file[1] >= booted and file not in of_model]
    yield Span("Python, from the snapshot", 0, booted / 1000)
    for name, group in (
        ("  its files", of_runtime),
        ("files of libraries", later),
        ("files of the model", of_model),
    ):
        if group:
            begin, end = min(file[1] for file in group), max(file[2] for file in group)
            yield Span(name, begin / 1000, end / 1000)
    for name, begin, end in found["phases"]:
        yield Span(name, begin / 1000, end / 1000)


def waterfall(spans: Sequence[Span]) -> Iterator[str]:
    """Return a line for each span, with a bar where it lies."""
    whole = max(span.end_s for span in spans)
    for span in spans:
        first = int(_BAR * span.begin_s / whole)
        length = max(1, round(_BAR * (span.end_s - span.begin_s) / whole))
        bar = (" " * first + "#" * length)[:_BAR].ljust(_BAR)
        yield f"{span.name:<26} |{bar}| {span.begin_s:6.2f} to {span.end_s:5.2f} s"
