"""One list of cases over all engines, so that they cannot drift apart: pages/engine_cases.py."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from py_engine.tooling.environment import ensure_node, ensure_webllm
from py_engine.tooling.site import Site
from tests.conformance.encoder_fixtures import EncoderFixture, write_encoder_folder
from tests.support.chrome_extension import ChromeExtension
from tests.support.extent import IS_ALL
from tests.support.site_server import RecordingServer

PAGES = Path(__file__).parent / "pages"
SOURCE = (PAGES / "engine_cases.py").read_text(encoding="utf-8")
CASES = re.findall(r"^async def case_(\w+)", SOURCE, re.MULTILINE)
ENCODER = "test-models/tiny-bert"

RUN_CASE = """(name) => Promise.race([
    runCase(name), new Promise((settle) => setTimeout(settle, 200000, 'no answer in 200 s'))])"""

OpenPage: TypeAlias = Callable[[str], Page]


@dataclass(frozen=True)
class Engine:
    """A function of pages/engine_kinds.py, and `config`, where Python is from (pages/engines.mjs).

    `cannot` are the cases that it has no way to express, each with the reason.
    """

    kind: str
    config: str
    cannot: Mapping[str, str] = field(default_factory=dict)


NO_SIGNAL = "it takes no signal with a request"
WEBLLM_CANNOT = {
    "abort_of_a_load": NO_SIGNAL,
    "abort_of_one_request": NO_SIGNAL,
    "abort_of_one_stream": NO_SIGNAL,
    "count_tokens": "it has no such method",
    "fields_of_errors": "it rejects with the error's text alone",
    "gpu_memory_of_all_models": "it has no such method",
    "profile_of_kernels": "it has no such method",
}
ENGINES = {
    "direct": Engine("direct", "py-engine"),
    "web worker": Engine("web_worker", "mpy"),
    "service worker": Engine("service_worker", "mpy"),
    "extension": Engine("extension", "extension"),
    "WebLLM's client": Engine("webllm_client", "py", WEBLLM_CANNOT),
}
if IS_ALL:
    ENGINES["web worker, Pyodide"] = Engine("web_worker", "py")


@pytest.fixture(scope="module")
def open_on_site(
    browser: Browser, site: Site, models_folder: Path, tiny_bert: EncoderFixture
) -> Iterator[OpenPage]:
    """Open a page in a profile of its own, on the site with the encoder and WebLLM beside it."""
    mounts = {
        "/engines.html": PAGES / "engines.html",
        "/test-models/": models_folder,
        "/webllm/": ensure_webllm(ensure_node()),
    }
    with RecordingServer(site.folder, mounts) as server:

        def open_page(path: str) -> Page:
            page = browser.new_context().new_page()
            page.goto(f"{server.url}/{path}")
            return page

        yield open_page


@pytest.fixture(scope="module")
def open_in_extension(
    playwright: Playwright,
    browser_type_launch_args: dict[str, Any],
    site: Site,
    tiny_bert: EncoderFixture,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OpenPage]:
    """Open a page of the extension that the site is, with the encoder and the cases in it."""
    folder = tmp_path_factory.mktemp("extension") / "unpacked"
    shutil.copytree(site.folder, folder, copy_function=os.link)
    write_encoder_folder(tiny_bert.case, folder / ENCODER)
    shutil.copytree(PAGES, folder / "tests" / "browser" / "pages")
    shutil.copy(PAGES / "engines.html", folder)
    profile = tmp_path_factory.mktemp("profile")
    extension = ChromeExtension(playwright, browser_type_launch_args, folder, profile)
    yield extension.open
    extension.close()


@pytest.fixture(scope="module", params=ENGINES.values(), ids=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """One engine after the other."""
    chosen: Engine = request.param
    return chosen


@pytest.fixture(scope="module")
def engine_page(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page with the engine and the cases."""
    place = "open_in_extension" if engine.config == "extension" else "open_on_site"
    page = request.getfixturevalue(place)(
        f"engines.html?config={engine.config}&engine={engine.kind}"
    )
    expect(page).to_have_title("ready", timeout=100_000)
    yield page
    page.close()


@pytest.mark.parametrize("case", CASES)
def test_engine(engine: Engine, engine_page: Page, case: str) -> None:
    problem = engine_page.evaluate(RUN_CASE, case)
    if case in engine.cannot:
        assert problem, f"it can: take {case!r} from the list of what this engine cannot do"
    else:
        assert not problem, problem


def test_all_cases_are_known(engine: Engine, engine_page: Page) -> None:
    assert sorted(engine_page.evaluate("() => caseNames").split(",")) == sorted(CASES)
    assert engine.cannot.keys() <= set(CASES)
