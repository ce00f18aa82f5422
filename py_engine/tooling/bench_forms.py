"""`build.py bench --tune`: the time of every form of the embedded model's products."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py_engine.config import prebuilt_app_config
from py_engine.tooling.in_worker import page_of_site, run_in_worker

if TYPE_CHECKING:
    from playwright.sync_api import Page

_WORKER_SOURCE = Path(__file__).with_name("bench_forms_worker.py")

_MEASURE = """
    const { py } = await boot();
    const globals = py.toPy({});
    await py.runPythonAsync(argument.source, { globals });
    return JSON.parse(await globals.get('measure')(argument.model));
"""


def main(site_folder: Path, *, as_json: bool) -> int:
    """Measure the embedded model of a built site; print a table, or JSON."""
    with page_of_site(site_folder) as (page, url):
        found = measure_forms(page, url)
    print(json.dumps(found, indent=2) if as_json else "\n".join(table(found)))
    return 0


def measure_forms(page: Page, url: str) -> dict[str, Any]:
    """Return the adapter, and the seconds of each form of a product, the plain one first.

    `seconds` is None for a form whose results are wrong there, `form` is None for the plain one.
    """
    argument = {
        "source": _WORKER_SOURCE.read_text(encoding="utf-8"),
        "model": f"{url}/{prebuilt_app_config.model_list[0].model}",
    }
    found: dict[str, Any]
    found, _ = run_in_worker(page, url, _MEASURE, argument)
    return found


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of a table; ratios are to the plain form of the same product."""
    yield f"{found['adapter']}\n"
    yield f"{'product':<22} {'form':<56} {'us':>10} {'ratio':>7}"
    plain: dict[tuple[Any, ...], float] = {}
    rows: Sequence[Mapping[str, Any]] = found["forms"]
    for row in sorted(rows, key=lambda row: tuple(row["product"])):
        kind, n_rows, n_columns = product = tuple(row["product"])
        seconds = row["seconds"]
        if row["form"] is None and seconds is not None:
            plain[product] = seconds
        form = row["form"] or {"plain": True}
        described = ", ".join(
            name if value is True else f"{name} {value}" for name, value in form.items() if value
        )
        name = f"{kind} {n_rows} x {n_columns}"
        if seconds is None:
            yield f"{name:<22} {described:<56} {'wrong':>10}"
            continue
        ratio = f"{seconds / plain[product]:.2f}" if product in plain else ""
        yield f"{name:<22} {described:<56} {1e6 * seconds:>10.1f} {ratio:>7}"
