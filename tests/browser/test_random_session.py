"""A long random session through the proxy and a real worker (pages/random_session.py)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from playwright.sync_api import Browser

from tests.conftest import RecordingServer

PAGES = Path(__file__).parent / "pages"
# A longer one by hand: PYWEBLLM_SESSION=seed,seconds
SEED, SECONDS = map(int, os.environ.get("PYWEBLLM_SESSION", "20261121,12").split(","))


def test_any_order_of_requests_leaves_the_engine_as_it_was(
    browser: Browser, session_server: RecordingServer
) -> None:
    page = browser.new_context(base_url=session_server.url).new_page()
    console: list[str] = []
    page.on("console", lambda message: console.append(message.text))
    # PyScript's configurations name their files relative to a page at the site's root.
    page.route(
        "**/random_session.html",
        lambda route: route.fulfill(path=PAGES / "random_session.html"),
    )
    page.goto("/random_session.html")
    page.wait_for_function("globalThis.runSession !== undefined", timeout=60_000)
    report = json.loads(page.evaluate(f"runSession({SEED}, {SECONDS})"))
    page.context.close()
    assert "failure" not in report, report["failure"]
    assert report["rounds"] >= 1
    assert len(report["counts"]) == 11
    assert (report["pending"], report["streams"], report["tasks"]) == (0, 0, 0)
    assert [text for text in console if "Traceback" in text or "never" in text] == []
