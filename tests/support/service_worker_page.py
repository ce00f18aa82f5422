"""A page with a client of the service worker, as tests drive it."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import BrowserContext

SCRIPT = "tests/browser/pages/service_worker_page.py"


class PageError(Exception):
    """A function of the page raised; `name` is the class of the error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class ServiceWorkerPage:
    """Runs the functions of tests/browser/pages/service_worker_page.py in a page of its own."""

    def __init__(self, context: BrowserContext, url: str, interpreter: str = "mpy") -> None:
        self.page = context.new_page()
        self._address = f"{url}/python.html?interpreter={interpreter}&script={SCRIPT}"
        self.open()

    def open(self) -> None:
        """Open the page, or open it anew."""
        self.page.goto(self._address)
        self.page.wait_for_function("globalThis.run !== undefined", timeout=60_000)

    def run(self, name: str, **arguments: Any) -> Any:
        """Call a function of the page and return its result. Errors: PageError."""
        return self.result(self.begin(name, **arguments))

    def begin(self, name: str, **arguments: Any) -> int:
        """Let a function of the page run; `result` waits for what the number stands for."""
        return int(self.page.evaluate(_BEGIN, [name, json.dumps(arguments)]))

    def result(self, number: int) -> Any:
        """Return the result of what `begin` began. Errors: PageError."""
        found = json.loads(self.page.evaluate(_RESULT, number))
        if "error" in found:
            raise PageError(found["error"], found["text"])
        return found["result"]


_BEGIN = "request => (globalThis.begun ??= []).push(run(...request)) - 1"
_RESULT = """number => Promise.race([begun[number], new Promise((settle) => setTimeout(
    settle, 120000, '{"error": "Timeout", "text": "no answer in 120 s"}'))])"""
