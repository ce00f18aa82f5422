"""The engine on a page, without a worker: as docs/main-thread.md shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import pytest
from playwright.sync_api import Page

from py_engine.tooling.steps import ROOT
from tests.browser.conftest import ServeAltered
from tests.support.site_server import RecordingServer

DOCUMENT = (ROOT / "docs" / "main-thread.md").read_text(encoding="utf-8")
PYSCRIPT, PYODIDE = re.findall(r"```html\n(.*?)```", DOCUMENT, re.DOTALL)
SHARD = "/models/Llama-Storyteller-7M-q4f16_1-MLC/params_shard_0.bin"

# Before a page's own scripts: what the browser is asked to keep, and how many turns of its event
# loop the page had when each piece of the answer came.
WATCH = """
globalThis.asked = 0;
navigator.storage.persist = async () => { asked++; return true; };
globalThis.turns = 0;
setInterval(() => turns++, 1);
globalThis.turnsAtPieces = [];
const isPiece = (node) => node.parentNode === document.body && node.data?.trim();
new MutationObserver((changes) => {
  if (changes.some((change) => [...change.addedNodes].some(isPiece))) turnsAtPieces.push(turns);
}).observe(document, { childList: true, subtree: true });
"""

OpenBody: TypeAlias = Callable[[str, str], Page]


@pytest.fixture
def open_body(page: Page) -> OpenBody:
    """Open a page at a site's root with this in its body, and wait for a text in it."""

    def open_and_wait(body: str, url: str) -> Page:
        html = f"<!doctype html><meta charset=utf-8><link rel=icon href=icon.svg><body>{body}"
        page.route("**/x.html", lambda route: route.fulfill(body=html, content_type="text/html"))
        page.goto(f"{url}/x.html")
        wait_for_answer(page)
        return page

    return open_and_wait


def wait_for_answer(page: Page) -> None:
    page.wait_for_function("document.body.innerText.split(' ').length > 20", timeout=120_000)


def test_page_of_the_documentation_keeps_the_model_and_its_turns(
    page: Page, server: RecordingServer, open_body: OpenBody
) -> None:
    page.add_init_script(WATCH)
    open_body(PYSCRIPT, server.url)
    assert page.evaluate("asked") == 1
    pieces = page.evaluate("turnsAtPieces")
    assert len(pieces) > 10
    assert len(set(pieces)) > len(pieces) / 2  # else the page stood still from token to token
    assert server.paths().count(SHARD) == 1
    page.reload()
    wait_for_answer(page)
    assert server.paths().count(SHARD) == 1


def test_page_without_pyscript(server: RecordingServer, open_body: OpenBody) -> None:
    open_body(PYODIDE, server.url)
    assert not [path for path in server.paths() if "pyscript/" in path]


def test_page_without_the_snapshot(serve_altered: ServeAltered, open_body: OpenBody) -> None:
    server = serve_altered({"boot.snap.gz": None})
    open_body(PYSCRIPT, server.url)
    assert "/py_engine.zip" in server.paths()
