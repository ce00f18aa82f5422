"""Measuring how long a worker takes to boot, from the snapshot and without it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from py_engine.tooling.in_worker import run_in_worker

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_BOOT = "return (await boot({ plain: argument })).bootInfo;"


@dataclass(frozen=True)
class BootTimes:
    """Median seconds from `new Worker` to py_engine imported, HTTP cache warm."""

    snapshot_s: float
    plain_s: float


def measure_boot(browser: Browser, url: str, runs: int = 3) -> BootTimes:
    """Boot workers of the site at `url` in turn, with and without the snapshot.

    Errors: RuntimeError when a snapshot is not restored, with the reason.
    """
    page = browser.new_page()
    page.goto(f"{url}/build.json")
    times: dict[bool, list[float]] = {False: [], True: []}
    for run in range(runs + 1):
        for plain in (False, True):
            seconds = _boot(page, url, plain)
            if run > 0:  # the first fills the cache
                times[plain].append(seconds)
    page.close()
    return BootTimes(snapshot_s=median(times[False]), plain_s=median(times[True]))


def _boot(page: Page, url: str, plain: bool) -> float:
    boot_info, seconds = run_in_worker(page, url, _BOOT, plain)
    if boot_info["mode"] != ("plain" if plain else "snapshot"):
        raise RuntimeError(f"the boot snapshot was not restored: {boot_info['snapshotError']}")
    return seconds
