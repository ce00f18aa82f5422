"""Fixtures of the browser tests: more workers, and sites with something wrong in them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
from playwright.sync_api import Browser

from py_engine.tooling.environment import ensure_node, ensure_webllm
from py_engine.tooling.site import Site
from tests.conformance.encoder_fixtures import load_encoder_fixture, write_encoder_folder
from tests.conformance.encoder_recipe import TEXT_CASE
from tests.support.engine_worker import EngineWorker
from tests.support.site_server import RecordingServer

StartWorker: TypeAlias = Callable[..., EngineWorker]
ServeAltered: TypeAlias = Callable[[Mapping[str, bytes | None]], RecordingServer]


@pytest.fixture
def start_worker(browser: Browser) -> Iterator[StartWorker]:
    """Start workers of their own: `start_worker(url, plain=False, neighbour=None)`."""
    workers: list[EngineWorker] = []

    def start(url: str, plain: bool = False, neighbour: EngineWorker | None = None) -> EngineWorker:
        workers.append(EngineWorker(browser, url, plain, neighbour))
        return workers[-1]

    yield start
    for worker in reversed(workers):
        worker.close()


@pytest.fixture
def serve_altered(site: Site, tmp_path: Path) -> Iterator[ServeAltered]:
    """Serve a copy of the site with other contents in some files; None removes a file."""
    with contextlib.ExitStack() as servers:

        def serve(changes: Mapping[str, bytes | None]) -> RecordingServer:
            folder = tmp_path / "altered"
            shutil.copytree(site.folder, folder, copy_function=os.link)
            for name, content in changes.items():
                (folder / name).unlink()  # a link: writing would change the original too
                if content is not None:
                    (folder / name).write_bytes(content)
            return servers.enter_context(RecordingServer(folder))

        yield serve


@pytest.fixture(scope="session")
def webllm_server(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecordingServer]:
    """The site, with WebLLM (/webllm/index.js) and a tiny BERT beside it."""
    encoder = tmp_path_factory.mktemp("encoder")
    write_encoder_folder(load_encoder_fixture(TEXT_CASE).case, encoder)
    mounts = {"/webllm/": ensure_webllm(ensure_node()), "/test-models/tiny-bert/": encoder}
    with RecordingServer(site.folder, mounts) as server:
        yield server
