"""WebLLM's own JavaScript clients (npm @mlc-ai/web-llm, unchanged) drive our workers.

The cases, which are what an app of WebLLM does, are in webllm/*_cases.mjs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from py_engine.tooling.environment import ensure_node, ensure_webllm
from py_engine.tooling.site import Site
from tests.conformance.encoder_fixtures import load_encoder_fixture
from tests.conformance.encoder_recipe import TEXT_CASE, TEXTS
from tests.support.chrome_extension import ChromeExtension
from tests.support.site_server import RecordingServer

FOLDER = Path(__file__).parent / "webllm"
RUN_CASE = """([name, argument]) => Promise.race([
    runCase(name, argument),
    new Promise((settle) => setTimeout(settle, 300000, {error: 'no answer in 300 s'}))])"""


def cases_of(*files: str) -> list[str]:
    """Return the names of the cases in files."""
    sources = [(FOLDER / f"{file}_cases.mjs").read_text(encoding="utf-8") for file in files]
    return re.findall(r"^  async (\w+)\(", "".join(sources), re.MULTILINE)


CASES = {
    "web_worker": cases_of("engine", "request", "web_worker"),
    "service_worker": cases_of("engine", "service_worker"),
    "extension": cases_of("engine", "extension"),
}


class ClientPage:
    """A page with one of WebLLM's clients and its cases."""

    def __init__(self, page: Page, url: str, client: str) -> None:
        self.page = page
        self._mistakes: list[str] = []
        page.on("pageerror", lambda error: self._mistakes.append(str(error)))
        page.goto(f"{url}?client={client}")
        expect(page).to_have_title("ready", timeout=60_000)
        assert page.evaluate("() => caseNames") == CASES[client]

    def run(self, case: str, argument: Any = None) -> Any:
        """Run a case to its end and return its value; nothing may be thrown beside it."""
        result = self.page.evaluate(RUN_CASE, [case, argument])
        assert "error" not in result, result["error"]
        assert self._mistakes == []
        return result.get("value")


@pytest.fixture(scope="module")
def web_worker_page(browser: Browser, webllm_server: RecordingServer) -> Iterator[ClientPage]:
    yield from page_of_site(browser, webllm_server, "web_worker")


@pytest.fixture(scope="module")
def service_worker_page(browser: Browser, webllm_server: RecordingServer) -> Iterator[ClientPage]:
    yield from page_of_site(browser, webllm_server, "service_worker")


def page_of_site(browser: Browser, server: RecordingServer, client: str) -> Iterator[ClientPage]:
    page = browser.new_context().new_page()
    yield ClientPage(page, f"{server.url}/tests/browser/webllm/client.html", client)
    page.context.close()


@pytest.fixture(scope="module")
def extension(
    playwright: Playwright,
    browser_type_launch_args: dict[str, Any],
    site: Site,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ChromeExtension]:
    """The example extension, which has WebLLM and the cases with it."""
    folder = tmp_path_factory.mktemp("extension") / "unpacked"
    shutil.copytree(site.folder, folder, copy_function=os.link)
    shutil.copytree(FOLDER, folder / "tests")
    shutil.copytree(ensure_webllm(ensure_node()), folder / "webllm")
    profile = tmp_path_factory.mktemp("profile")
    extension = ChromeExtension(playwright, browser_type_launch_args, folder, profile)
    yield extension
    extension.close()


@pytest.fixture
def extension_page(extension: ChromeExtension) -> Iterator[ClientPage]:
    """A page of the extension, whose background worker keeps the model from page to page."""
    page = extension.context.new_page()
    page.expose_function("killWorker", lambda: extension.kill_worker(page))
    yield ClientPage(page, f"chrome-extension://{extension.id}/tests/client.html", "extension")
    page.close()


@pytest.mark.sampled
@pytest.mark.parametrize("case", CASES["web_worker"])
def test_web_worker(web_worker_page: ClientPage, case: str) -> None:
    if case == "embeddings":
        found = np.array(web_worker_page.run(case, TEXTS))
        expected = load_encoder_fixture(TEXT_CASE).vectors("cls", False)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    else:
        web_worker_page.run(case)


@pytest.mark.parametrize("case", CASES["service_worker"])
def test_service_worker(service_worker_page: ClientPage, case: str) -> None:
    service_worker_page.run(case)


def test_service_worker_that_the_browser_ended(service_worker_page: ClientPage) -> None:
    story = service_worker_page.run("story")
    devtools = service_worker_page.page.context.new_cdp_session(service_worker_page.page)
    devtools.send("ServiceWorker.enable")
    devtools.send("ServiceWorker.stopAllWorkers")
    devtools.detach()
    assert service_worker_page.run("story") == story


@pytest.mark.sampled
@pytest.mark.parametrize("case", CASES["extension"])
def test_extension(extension_page: ClientPage, case: str) -> None:
    extension_page.run(case)
