"""docs/moving-from-webllm.md: its code runs as it stands there, its tables name all there is."""

from __future__ import annotations

import json
import operator
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright

import py_engine
from py_engine.tooling.environment import ensure_node, ensure_webllm
from py_engine.tooling.site import Site
from py_engine.tooling.steps import ROOT
from tests.support.chrome_extension import ChromeExtension
from tests.support.site_server import RecordingServer
from tests.support.worker_pair import WorkerPair

TEXT = (ROOT / "docs" / "moving-from-webllm.md").read_text(encoding="utf-8")
WEB_WORKER, SERVICE_WORKER, BACKGROUND, EXTENSION_PAGE = re.findall(r"```js\n(.*?)```", TEXT, re.S)
ROWS = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", TEXT, re.M)
PAGE = '<!doctype html><meta charset="utf-8"><body><script type="module" src="./code.mjs"></script>'
HAS_ANSWERED = "() => document.body.innerText.split(' ').length > 10"


def bundled(code: str) -> str:
    """Return code with the name of the package resolved, as a bundler does."""
    return code.replace('"@mlc-ai/web-llm"', '"/webllm/index.js"')


@pytest.mark.parametrize("code", [WEB_WORKER, SERVICE_WORKER], ids=["web", "service"])
def test_worker(browser: Browser, webllm_server: RecordingServer, code: str) -> None:
    page = browser.new_context().new_page()
    html, script = "text/html", "text/javascript"
    page.route("**/page.html", lambda route: route.fulfill(body=PAGE, content_type=html))
    page.route("**/code.mjs", lambda route: route.fulfill(body=bundled(code), content_type=script))
    page.goto(f"{webllm_server.url}/page.html")
    page.wait_for_function(HAS_ANSWERED, timeout=240_000)
    page.context.close()


def test_extension(
    playwright: Playwright, browser_type_launch_args: dict[str, Any], site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "extension"
    shutil.copytree(site.folder, folder / "engine", copy_function=os.link)
    shutil.copytree(ensure_webllm(ensure_node()), folder / "webllm")
    manifest = json.loads((site.folder / "manifest.json").read_text())
    manifest["background"]["service_worker"] = "background.mjs"
    for unused in ("action", "icons"):
        del manifest[unused]
    for name, content in {
        "manifest.json": json.dumps(manifest),
        "background.mjs": BACKGROUND,
        "page.html": PAGE,
        "code.mjs": bundled(EXTENSION_PAGE),
    }.items():
        (folder / name).write_text(content)
    extension = ChromeExtension(playwright, browser_type_launch_args, folder, tmp_path / "profile")
    extension.open("page.html").wait_for_selector("text=/(\\S+ ){10}/", timeout=240_000)
    extension.close()


def test_names(page: Page, webllm_server: RecordingServer) -> None:
    page.goto(f"{webllm_server.url}/icon.svg")
    exports, methods = page.evaluate(
        """async () => {
            const webllm = await import('/webllm/index.js');
            const { prototype } = webllm.WebWorkerMLCEngine;
            return [Object.keys(webllm), Object.getOwnPropertyNames(prototype)];
        }"""
    )
    inner = {"constructor", "getPromise", "asyncGenerate", "onmessage"}
    endpoints = {"Chat", "Completions", "Embeddings"}  # are reached through an engine
    theirs = {name.partition("(")[0] for name, _ in ROWS}
    absent = set(re.findall(r"`(\w+)`", TEXT.partition("Not there:")[2].partition("\n\n")[0]))
    assert set(exports) - endpoints == (theirs & set(exports)) | absent
    assert set(methods) - inner <= theirs
    client = WorkerPair().client
    for _, name in ROWS:
        find = operator.attrgetter(name.partition("(")[0])
        assert has(find, py_engine) or has(find, client), name


def has(find: Callable[[Any], Any], owner: Any) -> bool:
    try:
        find(owner)
    except AttributeError:
        return False
    return True
