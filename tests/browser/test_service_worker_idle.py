"""The browser ends an idle service worker: for real, in a Chromium without DevTools attached.

It does so about half a minute after the last message, so this takes long, but little computing.
"""

from __future__ import annotations

import os

import pytest

from py_engine.tooling.site import Site
from tests.support.lone_chromium import ReportServer, lone_chromium

ENDS = int(os.environ.get("PYWEBLLM_ENDED_WORKERS", "1"))
"""How many times in a row the worker is ended."""


@pytest.mark.browser
def test_the_browser_ends_an_idle_worker_and_its_page_goes_on(
    site: Site, pytestconfig: pytest.Config
) -> None:
    with ReportServer(site.folder) as server:
        page = "tests/browser/pages/service_worker_idle.py"
        address = f"{server.url}/python.html?interpreter=mpy&script={page}&ends={ENDS}"
        with lone_chromium(address, pytestconfig.getoption("--adapter")):
            first = server.report()
            assert len(first.get("story", "").split()) > 5, first
            server.requests.clear()
            for _ in range(ENDS):
                assert server.report() == {
                    "kept": True,
                    "error": "WorkerRestartedError",
                    "unread": first["story"],
                    "story": first["story"],
                }
            assert not [path for path in server.paths() if path.endswith(".bin")]
            assert server.paths().count("/boot.snap.gz") == ENDS
