"""WebLLM's own JavaScript client (npm @mlc-ai/web-llm, unchanged) drives our worker.

The cases are in webllm/*_cases.mjs; they are what an app of WebLLM does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from py_engine.tooling.environment import ensure_node, ensure_webllm
from py_engine.tooling.site import Site
from tests.conformance.encoder_fixtures import load_encoder_fixture, write_encoder_folder
from tests.conformance.encoder_recipe import TEXT_CASE, TEXTS
from tests.support.site_server import RecordingServer

FOLDER = Path(__file__).parent / "webllm"
WITH_ARGUMENT = {"embeddings"}
RUN_CASE = """([name, argument]) => Promise.race([
    runCase(name, argument),
    new Promise((settle) => setTimeout(settle, 120000, {error: 'no answer in 120 s'}))])"""


def cases_of(file: str) -> list[str]:
    """Return the names of the cases in a file."""
    source = (FOLDER / file).read_text(encoding="utf-8")
    return [name for name in re.findall(r"^  async (\w+)\(", source, re.MULTILINE)]


@pytest.fixture(scope="module")
def server_with_webllm(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecordingServer]:
    """The site with WebLLM and a tiny BERT beside it."""
    encoder = tmp_path_factory.mktemp("encoder")
    write_encoder_folder(load_encoder_fixture(TEXT_CASE).case, encoder)
    mounts = {"/webllm/": ensure_webllm(ensure_node()), "/test-models/": encoder}
    with RecordingServer(site.folder, mounts) as server:
        yield server


class ClientPage:
    """A page with WebLLM's client and the cases of one file; `mistakes` are uncaught errors."""

    def __init__(self, page: Page, url: str, cases: str) -> None:
        self.mistakes: list[str] = []
        self._page = page
        page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        page.goto(f"{url}/tests/browser/webllm/client.html?cases={cases}")
        page.wait_for_function("globalThis.runCase !== undefined", timeout=60_000)

    def run(self, case: str, argument: Any = None) -> Any:
        """Run a case to its end; returns its value."""
        result = self._page.evaluate(RUN_CASE, [case, argument])
        assert "error" not in result, result["error"]
        assert self.mistakes == []
        return result.get("value")


@pytest.fixture(scope="module")
def web_worker_page(browser: Browser, server_with_webllm: RecordingServer) -> Iterator[ClientPage]:
    page = browser.new_page()
    yield ClientPage(page, server_with_webllm.url, "web_worker_cases.mjs")
    page.close()


@pytest.mark.parametrize("case", cases_of("web_worker_cases.mjs"))
def test_web_worker(web_worker_page: ClientPage, case: str) -> None:
    if case not in WITH_ARGUMENT:
        web_worker_page.run(case)


def test_embeddings_are_the_encoders(web_worker_page: ClientPage) -> None:
    found = np.array(web_worker_page.run("embeddings", TEXTS))
    expected = load_encoder_fixture(TEXT_CASE).vectors("cls", False)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
