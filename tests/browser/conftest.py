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
from tests.conformance.encoder_fixtures import (
    EncoderFixture,
    load_encoder_fixture,
    write_encoder_folder,
)
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
def tiny_bert(models_folder: Path) -> EncoderFixture:
    """A tiny BERT, which is under /test-models/tiny-bert/ as well."""
    stored = load_encoder_fixture(TEXT_CASE)
    write_encoder_folder(stored.case, models_folder / "tiny-bert")
    return stored


@pytest.fixture(scope="session")
def webllm_server(
    site: Site, models_folder: Path, tiny_bert: EncoderFixture
) -> Iterator[RecordingServer]:
    """The site, with WebLLM (/webllm/index.js) and the tests' models beside it."""
    mounts = {"/webllm/": ensure_webllm(ensure_node()), "/test-models/": models_folder}
    with RecordingServer(site.folder, mounts) as server:
        yield server
