"""Fixtures of all tests: the site, a server of it, Chromium, and a worker to run Python in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from playwright.sync_api import Browser, expect

from py_engine.tooling.chromium import Adapter, launch_options
from py_engine.tooling.site import Site, build_site
from tests.support.engine_worker import EngineWorker
from tests.support.extent import IS_ALL
from tests.support.site_server import RecordingServer

expect.set_options(timeout=60_000)  # ms; a busy machine takes more than Playwright's 5,000

ONE_IN = 4
"""Of how many cases of a test with the marker `sampled` one runs, but for PYWEBLLM_ALL=1."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--adapter`."""
    parser.addoption(
        "--adapter",
        choices=["swiftshader", "hardware"],
        default="swiftshader",
        help="WebGPU adapter of the browser tests (default: swiftshader, the same everywhere)",
    )


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook, too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run browser tests last: quick ones first, and Playwright occupies asyncio once it runs."""
    is_choice = len(items) <= ONE_IN  # of somebody who names a test
    if not IS_ALL and not is_choice:
        items[:] = _sample(items)
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()) or "browser" in item.path.parts:
            item.add_marker("browser")
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


def _sample(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests to run: the same on every machine, of each test one case at least."""
    chance = {item: crc32(item.nodeid.encode()) for item in items}
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen: set[pytest.Item] = set()
    for of_test in cases.values():
        in_sample = [
            item
            for item in of_test
            if item.get_closest_marker("sampled") is None or chance[item] % ONE_IN == 0
        ]
        chosen.update(in_sample or [min(of_test, key=chance.__getitem__)])
    return [item for item in items if item in chosen]


def _group(item: pytest.Item) -> str:
    """Return a name shared by the tests that one of several processes runs: their pages are slow.

    A file is a group, its browser tests another one; so is each engine of test_engines.py.
    """
    parts = [item.path.name]
    if item.get_closest_marker("browser"):
        parts.append("browser")
    engine = getattr(item, "callspec", None) and item.callspec.params.get("engine")
    if engine is not None:
        parts.append(engine.kind)
    return " ".join(parts)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site of the working tree, in a folder of this test run."""
    return build_site(tmp_path_factory.mktemp("site"), numpy="required")


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' own models, which servers of the site have under /test-models/."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def session_server(site: Site, models_folder: Path) -> Iterator[RecordingServer]:
    """One server for the whole run; tests use `server`, which records their own requests."""
    with RecordingServer(site.folder, {"/test-models/": models_folder}) as server:
        yield server


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


@pytest.fixture(scope="session")
def engine_worker(browser: Browser, session_server: RecordingServer) -> Iterator[EngineWorker]:
    """A worker for the whole run, restored from the boot snapshot."""
    worker = EngineWorker(browser, session_server.url)
    yield worker
    worker.close()
