"""What the proxy adds to a streamed chunk, and how long a message waits during generations."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from py_engine.config import prebuilt_app_config
from py_engine.tooling.server import SiteServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Where the page finds the sources beside this file.
MOUNTS = {"/bench/": Path(__file__).parent}

_PAGE = """<!doctype html>
<title>bench</title>
<script type="module" src="./pyscript/core.js"></script>
<script type="{kind}" config="./pyscript-{kind}.json" src="./bench/bench_proxy_page.py"></script>
"""


def measure_messages(
    browser: Browser, server: SiteServer, n_chunks: int = 2000, seconds: int = 20
) -> dict[str, Any]:
    """Return medians in milliseconds; `server` must have MOUNTS."""
    figures: dict[str, Any] = {}
    for kind in ("mpy", "py"):
        page = _open(browser, server.url, kind)
        times = json.loads(page.evaluate(f"measureProxy({n_chunks})"))
        figures[f"proxy_ms_per_chunk_{kind}"] = median(times["proxy"])
        figures[f"round_trip_ms_per_chunk_{kind}"] = median(times["round_trip"])
        page.context.close()
    page = _open(browser, server.url, "mpy")
    model = prebuilt_app_config.model_list[0].model_id
    measured = json.loads(page.evaluate(f"measureWaits('{model}', {seconds})"))
    page.context.close()
    waits = measured["waits"]
    return figures | {
        "message_wait_ms": median(waits),
        "message_wait_ms_p99": quantiles(waits, n=100)[98],
        "message_wait_tokens_per_s": measured["chunks"] / seconds,
    }


def _open(browser: Browser, url: str, kind: str) -> Page:
    page = browser.new_context().new_page()
    html = _PAGE.format(kind=kind)
    page.route("**/bench.html", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(f"{url}/bench.html")
    page.wait_for_function("globalThis.measureWaits !== undefined")
    return page
