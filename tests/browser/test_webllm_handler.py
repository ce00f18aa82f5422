"""Our proxy, on MicroPython and on Pyodide, drives WebLLM's own WebWorkerMLCEngineHandler.

The handler and its engine are npm @mlc-ai/web-llm's; only the models are stubs, as compiled ones
are not to be had here (webllm/stub_engine.mjs). The cases are in webllm/handler_cases.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import RecordingServer
from tests.support.interpreters import INTERPRETERS

SCRIPT = "tests/browser/webllm/handler_cases.py"
SOURCE = (Path(__file__).parent / "webllm" / "handler_cases.py").read_text(encoding="utf-8")
CASES = sorted(re.findall(r"^async def case_(\w+)", SOURCE, re.MULTILINE))

RUN_CASE = """(name) => Promise.race([
    runCase(name), new Promise((settle) => setTimeout(settle, 60000, 'no answer in 60 s'))])"""


@pytest.fixture(scope="module", params=INTERPRETERS)
def handler_page(
    request: pytest.FixtureRequest, browser: Browser, webllm_server: RecordingServer
) -> Iterator[Page]:
    """A page where one of the interpreters has loaded the cases."""
    page = browser.new_context(base_url=webllm_server.url).new_page()
    page.goto(f"/python.html?interpreter={request.param}&script={SCRIPT}")
    page.wait_for_function("globalThis.runCase !== undefined", timeout=60_000)
    yield page
    page.context.close()


@pytest.mark.parametrize("case", CASES)
def test_handler(handler_page: Page, case: str) -> None:
    assert handler_page.evaluate(RUN_CASE, case) == ""


def test_all_cases_are_known_to_the_page(handler_page: Page) -> None:
    assert handler_page.evaluate("caseNames").split(",") == CASES
