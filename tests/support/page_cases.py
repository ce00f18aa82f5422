"""Cases in the Python file of a page: functions `case_...`, and `runCase(name)` for JavaScript."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

from py_engine.tooling.steps import ROOT

PAGE_SUPPORT = "tests/browser/pages/page_support.py"
"""What the files of cases import."""


def case_names(script: Path | str) -> list[str]:
    """Return the names of the functions that are cases, in the script's order."""
    source = (ROOT / script).read_text(encoding="utf-8")
    return re.findall(r"^async def (case_\w+)", source, re.MULTILINE)


@contextmanager
def open_cases(browser: Browser, url: str, script: str, interpreter: str) -> Iterator[Page]:
    """Open a page where an interpreter, "mpy" or "py", has loaded a script of cases.

    `url` is of a RecordingServer, `script` a path in the repository.
    """
    page = browser.new_context(base_url=url).new_page()
    page.goto(f"/python.html?interpreter={interpreter}&script={script}&module={PAGE_SUPPORT}")
    page.wait_for_function("globalThis.runCase !== undefined", timeout=60_000)
    yield page
    page.context.close()


def run_case(page: Page, name: str, seconds: int = 60) -> str:
    """Run a case; return "", or what went wrong, which may be that it took too long."""
    problem: str = page.evaluate(_RUN_CASE, [name, seconds])
    return problem


def known_cases(page: Page) -> list[str]:
    """Return the names of the cases that the page has."""
    names: str = page.evaluate("() => caseNames")
    return names.split(",")


_RUN_CASE = """([name, seconds]) => Promise.race([runCase(name), new Promise((settle) =>
    setTimeout(settle, seconds * 1000, `no answer in ${seconds} s`))])"""
