"""Fixtures of all tests: the site, a server of it, Chromium, and a worker to run Python in."""

from __future__ import annotations

import inspect
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from py_engine.tooling.chromium import Adapter, launch_options
from py_engine.tooling.server import SiteServer
from py_engine.tooling.site import Site, build_site
from tests.browser.support.run_code import pack, unpack

SUPPORT = Path(__file__).parent / "browser" / "support"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--adapter",
        choices=["swiftshader", "hardware"],
        default="swiftshader",
        help="WebGPU adapter of the browser tests (default: swiftshader, the same everywhere)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run browser tests last: quick ones first, and Playwright occupies asyncio once it runs."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site of the working tree, in a folder of this test run."""
    return build_site(tmp_path_factory.mktemp("site"), numpy="required")


@dataclass
class RecordingServer:
    """The site being served, and what was asked of it."""

    url: str
    requests: list[tuple[str, int]] = field(default_factory=list)

    def paths(self) -> list[str]:
        """Return the paths asked for, without their queries."""
        return [target.partition("?")[0] for target, _ in self.requests]


@pytest.fixture(scope="session")
def session_server(site: Site) -> Iterator[RecordingServer]:
    """One server for the whole run; tests use `server`, which records their own requests."""
    recording = RecordingServer("")
    lock = threading.Lock()

    def record(target: str, status: int) -> None:
        with lock:
            recording.requests.append((target, status))

    with SiteServer(site.folder, mounts={"/test-support/": SUPPORT}, on_request=record) as server:
        recording.url = server.url
        yield recording


@pytest.fixture
def server(session_server: RecordingServer) -> RecordingServer:
    """The server of the site, with an empty record of requests."""
    session_server.requests.clear()
    return session_server


@pytest.fixture(scope="session")
def browser_type_launch_args(pytestconfig: pytest.Config) -> dict[str, Any]:
    """Chromium with WebGPU, for pytest-playwright."""
    adapter: Adapter = pytestconfig.getoption("--adapter")
    return launch_options(adapter, headless=not pytestconfig.getoption("--headed"))


@pytest.fixture(scope="session")
def browser_context_args(session_server: RecordingServer) -> dict[str, Any]:
    """Pages may use URLs relative to the site's server."""
    return {"base_url": session_server.url}


class WorkerError(Exception):
    """Code failed in the worker; the text is Python's traceback from there."""


class EngineWorker:
    """A worker with Python and py_engine booted, as the engine's; tests run code in it.

    It boots at the first `run` and again after one that timed out. Modules and their state
    persist between runs, names of the code do not.
    """

    def __init__(self, browser: Browser, url: str, plain: bool = False) -> None:
        self._browser, self._plain = browser, plain
        self._url = f"{url}/test-support/engine_worker.html" + ("?boot=plain" if plain else "")
        self._page: Page | None = None
        self._console: list[str] = []

    def run(self, code: str | Callable[..., Any], /, timeout: float = 120, **values: Any) -> Any:
        """Run code in the worker and return its result; both consist of JSON types and bytes.

        `code` is text in which `values` are names, whose last expression is the result (`await`
        is allowed), or a function, which is called there with `values` as its arguments: only
        its source is sent, so it must import what it needs and have no decorators.
        `timeout` is in seconds. Errors: WorkerError with the worker's traceback and console.
        """
        text = textwrap.dedent(inspect.getsource(code) if callable(code) else code)
        if callable(code):
            call = f"{code.__name__}({', '.join(f'{name}={name}' for name in values)})"
            text += f"\n{'await ' if inspect.iscoroutinefunction(code) else ''}{call}\n"
        page = self._open_page()
        self._console.clear()
        request = {"code": text, "values": pack(values), "timeout": timeout}
        answer = page.evaluate("request => ask(request)", request)
        if "timedOut" in answer:
            self.close()
            raise WorkerError(f"no answer in {timeout} s, so the worker was ended{self._notes()}")
        if "error" in answer:
            raise WorkerError(f"{answer['error']}{self._notes()}")
        return unpack(answer["result"])

    def close(self) -> None:
        """End the worker."""
        if self._page is not None:
            self._page.context.close()
            self._page = None

    def _open_page(self) -> Page:
        if self._page is None:
            self._page = self._browser.new_context().new_page()
            self._page.on("console", lambda message: self._console.append(message.text))
            self._page.goto(self._url)
            self._page.wait_for_function("globalThis.ask !== undefined")
        return self._page

    def _notes(self) -> str:
        return "\nconsole:\n" + "\n".join(self._console) if self._console else ""


@pytest.fixture(scope="session")
def engine_worker(browser: Browser, session_server: RecordingServer) -> Iterator[EngineWorker]:
    """A worker for the whole run, restored from the boot snapshot."""
    worker = EngineWorker(browser, session_server.url)
    yield worker
    worker.close()
