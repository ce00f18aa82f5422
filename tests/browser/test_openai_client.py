"""OpenAI's own client in the browser: on the worker's engine, and on the page's proxy of one.

The cases are in pages/openai_cases.py; the client is the one that comes with Pyodide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from py_engine.tooling.steps import ROOT
from tests.conftest import RecordingServer
from tests.support.engine_worker import EngineWorker
from tests.support.page_cases import run_case

PAGES = Path(__file__).parent / "pages"
DOCUMENT = (ROOT / "docs" / "openai-client.md").read_text(encoding="utf-8")
SNIPPET = DOCUMENT.partition("```html\n")[2].partition("```")[0]
SOURCE = (PAGES / "openai_cases.py").read_text(encoding="utf-8")
CASES = re.findall(r"^async def case_(\w+)", SOURCE, re.MULTILINE)

OPEN = """
import sys
import types

import pyodide_js

await pyodide_js.loadPackage("openai")
cases = types.ModuleType("openai_cases")
exec(compile(source, "openai_cases.py", "exec"), cases.__dict__)
from py_engine.engine import MLCEngine

engine = cases.engine = MLCEngine()
await engine.reload(cases.MODEL)
sys.modules["openai_cases"] = cases
None
"""


@pytest.fixture(scope="module")
def worker(engine_worker: EngineWorker) -> Iterator[EngineWorker]:
    """The worker with an engine that has loaded the embedded model."""
    engine_worker.run(OPEN, source=SOURCE)
    yield engine_worker
    engine_worker.run("import openai_cases\nawait openai_cases.engine.unload()")


@pytest.fixture(scope="module")
def openai_page(browser: Browser, session_server: RecordingServer) -> Iterator[Page]:
    """The page of docs/openai-client.md, and then the cases on its engine."""
    page = browser.new_context(base_url=session_server.url).new_page()
    code = (PAGES / "openai_page.py").read_text(encoding="utf-8")
    html = "<!doctype html><meta charset=utf-8><link rel=icon href=icon.svg><body>" + SNIPPET
    html = html.removesuffix("</script>\n") + code + "</script>"
    # PyScript's configurations name their files relative to a page at the site's root.
    page.route("**/openai.html", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto("/openai.html")
    page.wait_for_function("globalThis.runCase !== undefined", timeout=120_000)
    yield page
    page.context.close()


@pytest.mark.parametrize("case", CASES)
def test_in_the_worker(worker: EngineWorker, case: str) -> None:
    async def run(case: str) -> str:
        import openai_cases

        return await openai_cases.run_case(case, openai_cases.engine)

    problem = worker.run(run, case=case)
    assert not problem, problem


def test_page_of_the_documentation(openai_page: Page) -> None:
    assert len(openai_page.inner_text("body").split()) > 20


@pytest.mark.parametrize("case", CASES)
def test_on_the_page(openai_page: Page, case: str) -> None:
    problem = run_case(openai_page, case)
    assert not problem, problem
