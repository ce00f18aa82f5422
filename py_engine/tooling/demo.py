"""`build.py demo`: the chat page with the embedded model, in a window or driven from a terminal."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py_engine.tooling.chromium import launch
from py_engine.tooling.server import SiteServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

DEFAULT_PROMPT = "Tell me a story about a brave little fox."
LOAD_TIMEOUT_S = 300
PROGRESS_INTERVAL_S = 1
POLL_MS = 50

# The chat page's state, and what a visitor reads on it (web/index.html has the elements).
_READ_PAGE = """() => {
    const text = (selector) => document.querySelector(selector)?.innerText ?? '';
    const answers = document.querySelectorAll('.message.assistant');
    return {
        state: document.documentElement.dataset.state,
        status: text('#status'),
        progress: text('#progress-text'),
        notice: text('#notice'),
        stats: text('#stats'),
        answer: answers.length ? answers[answers.length - 1].innerText : '',
    };
}"""


class DemoFailed(Exception):
    """The chat page showed an error instead of an answer."""


def run_demo(site_folder: Path, prompt: str | None, headless: bool) -> int:
    """Show the chat page; with a prompt, when asked or without a display in the terminal.

    Returns the exit status.
    """
    from playwright.sync_api import sync_playwright

    with_window = prompt is None and not headless and has_display()
    with SiteServer(site_folder) as server, sync_playwright() as playwright:
        browser, adapter = launch(playwright, headless=not with_window)
        page = browser.new_page(no_viewport=True) if with_window else browser.new_page()
        print(f"{'demo':<12} {server.url}/ in Chromium, WebGPU adapter: {adapter or 'none'}")
        try:
            page.goto(f"{server.url}/?autoload=1")
            if with_window:
                print(f"{'':<12} close the window to end", flush=True)
                page.wait_for_event("close", timeout=0)
            else:
                answer_in_terminal(page, prompt or DEFAULT_PROMPT)
        except DemoFailed as error:
            print(f"\nbuild.py: {error}", file=sys.stderr)
            return 1
        finally:
            browser.close()
    return 0


def has_display() -> bool:
    """Tell whether a window can be opened."""
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def answer_in_terminal(page: Page, prompt: str) -> None:
    """Wait for the model, send the prompt, print the answer as it grows and the statistics."""
    _wait_until_loaded(page)
    print(f"\n> {prompt}\n", flush=True)
    page.fill("#prompt", prompt)
    page.click("#send")
    shown, reading = "", _read(page)
    while reading["state"] == "generating" or not reading["stats"]:
        shown = _print_growth(shown, reading["answer"])
        page.wait_for_timeout(POLL_MS)
        reading = _read(page)
    shown = _print_growth(shown, reading["answer"], is_final=True)
    print(f"\n\n{reading['stats']}", flush=True)


def _wait_until_loaded(page: Page) -> None:
    started = shown_at = time.monotonic()
    while (reading := _read(page))["state"] != "loaded":
        now = time.monotonic()
        if now - shown_at >= PROGRESS_INTERVAL_S:
            shown_at = now
            print(f"{'load':<12} {reading['progress'] or reading['status']}", flush=True)
        if now - started > LOAD_TIMEOUT_S:
            raise DemoFailed(f"the model was not loaded after {LOAD_TIMEOUT_S} s")
        page.wait_for_timeout(POLL_MS)
    print(f"{'load':<12} {reading['status']}", flush=True)


def _read(page: Page) -> dict[str, Any]:
    reading: dict[str, Any] = page.evaluate(_READ_PAGE)
    if reading["state"] == "error":
        raise DemoFailed(f"{reading['status']}\n{reading['notice']}")
    return reading


def _print_growth(shown: str, answer: str, is_final: bool = False) -> str:
    """Print what came after `shown`; return what is shown now.

    The end of an unfinished answer is held back where formatting may still change it.
    """
    settled = answer if is_final else answer.rstrip().rstrip("*_`#")
    if settled.startswith(shown):
        print(settled.removeprefix(shown), end="", flush=True)
        return settled
    if is_final:
        print(f"\n\n{answer}", end="", flush=True)
    return shown
