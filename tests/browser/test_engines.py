"""One list of cases over all engines, so that they cannot drift apart: pages/engine_cases.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from py_engine.tooling.site import Site
from tests.conformance.encoder_fixtures import load_encoder_fixture, write_encoder_folder
from tests.conformance.encoder_recipe import TEXT_CASE
from tests.support.site_server import RecordingServer

PAGES = Path(__file__).parent / "pages"
SOURCE = (PAGES / "engine_cases.py").read_text(encoding="utf-8")
CASES = re.findall(r"^async def case_(\w+)", SOURCE, re.MULTILINE)
BERT = "test-models/tiny-bert/"

RUN_CASE = """(name) => Promise.race([
    runCase(name), new Promise((settle) => setTimeout(settle, 100000, 'no answer in 100 s'))])"""


@dataclass(frozen=True)
class Engine:
    """A function of pages/engine_kinds.py and the site's PyScript configuration it runs with.

    `cannot` are the cases that it has no way to express, each with the reason.
    """

    kind: str
    config: str
    cannot: dict[str, str]


ENGINES = {
    "direct": Engine("direct", "py-engine", {}),
    "web worker, Pyodide": Engine("web_worker", "py", {}),
    "web worker, MicroPython": Engine("web_worker", "mpy", {}),
}


@pytest.fixture(scope="module", params=ENGINES.values(), ids=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """One engine after the other."""
    chosen: Engine = request.param
    return chosen


@pytest.fixture(scope="module")
def engine_page(
    engine: Engine, browser: Browser, session_server: RecordingServer, site: Site
) -> Iterator[Page]:
    """A page with the engine and the cases."""
    write_encoder_folder(load_encoder_fixture(TEXT_CASE).case, site.folder / BERT)
    page = browser.new_context(base_url=session_server.url).new_page()
    # PyScript's configurations name their files relative to a page at the site's root.
    page.route("**/engines.html?*", lambda route: route.fulfill(path=PAGES / "engines.html"))
    page.goto(f"/engines.html?config={engine.config}&engine={engine.kind}")
    page.wait_for_function("globalThis.runCase !== undefined", timeout=100_000)
    yield page
    page.context.close()


@pytest.mark.parametrize("case", CASES)
def test_engine(engine: Engine, engine_page: Page, case: str) -> None:
    problem = engine_page.evaluate(RUN_CASE, case)
    if case in engine.cannot:
        assert problem, f"it can: take {case!r} from the list of what this engine cannot do"
    else:
        assert not problem, problem


def test_all_cases_are_known(engine: Engine, engine_page: Page) -> None:
    assert sorted(engine_page.evaluate("caseNames").split(",")) == sorted(CASES)
    assert engine.cannot.keys() <= set(CASES)
