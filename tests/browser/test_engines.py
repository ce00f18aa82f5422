"""One list of cases over all engines, so that they cannot drift apart: pages/engine_cases.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from py_engine.tooling.environment import ensure_node, ensure_webllm
from py_engine.tooling.site import Site
from tests.conformance.encoder_fixtures import load_encoder_fixture, write_encoder_folder
from tests.conformance.encoder_recipe import TEXT_CASE
from tests.support.site_server import RecordingServer

PAGES = Path(__file__).parent / "pages"
SOURCE = (PAGES / "engine_cases.py").read_text(encoding="utf-8")
CASES = re.findall(r"^async def case_(\w+)", SOURCE, re.MULTILINE)

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


NO_SIGNAL = "WebLLM's client takes no signal with a request"
WEBLLM_CANNOT = {
    "abort_of_a_load": NO_SIGNAL,
    "abort_of_one_request": NO_SIGNAL,
    "abort_of_one_stream": NO_SIGNAL,
    "count_tokens": "it has no such method",
    "fields_of_errors": "it rejects with the error's text alone",
    "gpu_memory_of_all_models": "it has no such method",
}
ENGINES = {
    "direct": Engine("direct", "py-engine", {}),
    "web worker, Pyodide": Engine("web_worker", "py", {}),
    "web worker, MicroPython": Engine("web_worker", "mpy", {}),
    "WebLLM's client": Engine("webllm_client", "py", WEBLLM_CANNOT),
}


@pytest.fixture(scope="module", params=ENGINES.values(), ids=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """One engine after the other."""
    chosen: Engine = request.param
    return chosen


@pytest.fixture(scope="module")
def engines_server(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecordingServer]:
    """The site, with a tiny BERT and WebLLM beside it."""
    encoder = tmp_path_factory.mktemp("encoder")
    write_encoder_folder(load_encoder_fixture(TEXT_CASE).case, encoder)
    mounts = {"/webllm/": ensure_webllm(ensure_node()), "/test-models/tiny-bert/": encoder}
    with RecordingServer(site.folder, mounts) as server:
        yield server


@pytest.fixture(scope="module")
def engine_page(
    engine: Engine, browser: Browser, engines_server: RecordingServer
) -> Iterator[Page]:
    """A page with the engine and the cases."""
    page = browser.new_context(base_url=engines_server.url).new_page()
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
