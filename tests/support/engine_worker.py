"""A web worker with the engine booted in it, for tests to run Python in."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Page

from tests.browser.support.run_code import pack, unpack


class WorkerError(Exception):
    """Code failed in the worker; the text is Python's traceback from there."""


class EngineWorker:
    """A worker with Python and py_engine booted, as the engine's; tests run code in it.

    `neighbour` is a worker whose storage it shares, as another tab does; else it has its own.

    It boots at the first `run` and again after one that timed out. Modules and their state
    persist between runs, names of the code do not.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        plain: bool = False,
        neighbour: EngineWorker | None = None,
    ) -> None:
        self._browser = browser
        self._neighbour = neighbour
        self._url = f"{url}/test-support/engine_worker.html" + ("?boot=plain" if plain else "")
        self._page: Page | None = None
        self.console: list[str] = []

    def run(self, code: str | Callable[..., Any], /, timeout: float = 120, **values: Any) -> Any:
        """Run code in the worker and return its result; both consist of JSON types and bytes.

        `code` is text in which `values` are names, whose last expression is the result (`await`
        is allowed), or a function, which is called there with `values` as its arguments: only
        its source is sent, so it must import what it needs and have no decorators.
        `timeout` is in seconds. Errors: WorkerError with the worker's traceback and console.
        """
        page = self._open_page()
        self.console.clear()
        answer = page.evaluate("request => ask(request)", _request(code, values, timeout))
        if "timedOut" in answer:
            self.close()
            raise WorkerError(f"no answer in {timeout} s, so the worker was ended{self._notes()}")
        if "error" in answer:
            raise WorkerError(f"{answer['error']}{self._notes()}")
        return unpack(answer["result"])

    def begin(self, code: str | Callable[..., Any], /, **values: Any) -> None:
        """Let code run in the worker without waiting for it or hearing of it again."""
        self._open_page().evaluate("request => void ask(request)", _request(code, values, 120))

    def reboot(self) -> None:
        """End the worker, whatever it is doing, and boot another one with the same storage."""
        page = self._open_page()
        page.reload()
        page.wait_for_function("globalThis.ask !== undefined")

    def close(self) -> None:
        """End the worker."""
        if self._page is not None:
            if self._neighbour is None:
                self._page.context.close()
            else:
                self._page.close()
            self._page = None

    @property
    def page(self) -> Page:
        """The page that the worker belongs to."""
        return self._open_page()

    def _open_page(self) -> Page:
        if self._page is None:
            neighbour = self._neighbour
            context = neighbour.page.context if neighbour else self._browser.new_context()
            self._page = context.new_page()
            self._page.on("console", lambda message: self.console.append(message.text))
            self._page.goto(self._url)
            self._page.wait_for_function("globalThis.ask !== undefined")
        return self._page

    def _notes(self) -> str:
        return "\nconsole:\n" + "\n".join(self.console) if self.console else ""


def _request(
    code: str | Callable[..., Any], values: dict[str, Any], timeout: float
) -> dict[str, Any]:
    return {"code": _source(code, values), "values": pack(values), "timeout": timeout}


def _source(code: str | Callable[..., Any], values: dict[str, Any]) -> str:
    if isinstance(code, str):
        return textwrap.dedent(code)
    call = f"{code.__name__}({', '.join(f'{name}={name}' for name in values)})"
    awaited = "await " if inspect.iscoroutinefunction(code) else ""
    return f"{textwrap.dedent(inspect.getsource(code))}\n{awaited}{call}\n"
