"""Our proxy, on MicroPython and on Pyodide, drives WebLLM's own WebWorkerMLCEngineHandler.

The handler and its engine are npm @mlc-ai/web-llm's; only the models are stubs, as compiled ones
are not to be had here (webllm/stub_engine.mjs). The cases are in webllm/handler_cases.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.extent import INTERPRETERS
from tests.support.page_cases import case_names, known_cases, open_cases, run_case
from tests.support.site_server import RecordingServer

SCRIPT = "tests/browser/webllm/handler_cases.py"
CASES = case_names(SCRIPT)


@pytest.fixture(scope="module", params=INTERPRETERS)
def handler_page(
    request: pytest.FixtureRequest, browser: Browser, webllm_server: RecordingServer
) -> Iterator[Page]:
    """A page where one of the interpreters has loaded the cases."""
    with open_cases(browser, webllm_server.url, SCRIPT, request.param) as page:
        yield page


@pytest.mark.parametrize("case", CASES)
def test_handler(handler_page: Page, case: str) -> None:
    assert run_case(handler_page, case) == ""


def test_all_cases_are_known_to_the_page(handler_page: Page) -> None:
    assert known_cases(handler_page) == sorted(CASES)
