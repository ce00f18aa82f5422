"""The proxy on the main thread, on MicroPython and on Pyodide from one source, and a real worker.

The worker serves a scripted engine; the cases are in pages/proxy_cases.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.extent import PAGE_INTERPRETERS
from tests.support.page_cases import case_names, known_cases, open_cases, run_case
from tests.support.site_server import RecordingServer

SCRIPT = "tests/browser/pages/proxy_cases.py"
CASES = case_names(SCRIPT)


@pytest.fixture(scope="module", params=PAGE_INTERPRETERS)
def proxy_page(
    request: pytest.FixtureRequest, browser: Browser, session_server: RecordingServer
) -> Iterator[Page]:
    """A page where one of the interpreters has loaded the cases."""
    with open_cases(browser, session_server.url, SCRIPT, request.param) as page:
        yield page


@pytest.mark.parametrize("case", CASES)
def test_proxy(proxy_page: Page, case: str) -> None:
    assert run_case(proxy_page, case) == ""


def test_all_cases_are_known_to_the_page(proxy_page: Page) -> None:
    assert known_cases(proxy_page) == sorted(CASES)
