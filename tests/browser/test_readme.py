"""The chat in README.md works as it stands there."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from py_engine.tooling.steps import ROOT
from tests.support.site_server import RecordingServer


@pytest.mark.parametrize("kind", ["mpy", "py"])
def test_chat_in_the_readme(page: Page, server: RecordingServer, kind: str) -> None:
    snippet = (ROOT / "README.md").read_text().partition("```html\n")[2].partition("```")[0]
    snippet = snippet.replace('"mpy"', f'"{kind}"')
    html = f"<!doctype html><meta charset=utf-8><body>{snippet}"
    page.route("**/readme.html", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto("/readme.html")
    page.wait_for_function("document.body.innerText.split(' ').length > 10", timeout=120_000)
