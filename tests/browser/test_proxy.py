"""The proxy on the main thread, on MicroPython and on Pyodide from one source, and a real worker.

The worker serves a scripted engine; the cases are in pages/proxy_cases.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import RecordingServer

PAGES = Path(__file__).parent / "pages"
SOURCE = (PAGES / "proxy_cases.py").read_text(encoding="utf-8")
CASES = sorted(re.findall(r"^async def case_(\w+)", SOURCE, re.MULTILINE))

RUN_CASE = """(name) => Promise.race([
    runCase(name), new Promise((settle) => setTimeout(settle, 60000, 'no answer in 60 s'))])"""


@pytest.fixture(scope="module", params=["mpy", "py"])
def proxy_page(
    request: pytest.FixtureRequest, browser: Browser, session_server: RecordingServer
) -> Iterator[Page]:
    """A page where one of the interpreters has loaded the cases."""
    page = browser.new_context(base_url=session_server.url).new_page()
    page.goto(f"/python.html?interpreter={request.param}&script=tests/browser/pages/proxy_cases.py")
    page.wait_for_function("globalThis.runCase !== undefined", timeout=60_000)
    yield page
    page.context.close()


@pytest.mark.parametrize("case", CASES)
def test_proxy(proxy_page: Page, case: str) -> None:
    assert proxy_page.evaluate(RUN_CASE, case) == ""


def test_all_cases_are_known_to_the_page(proxy_page: Page) -> None:
    assert proxy_page.evaluate("caseNames").split(",") == CASES
