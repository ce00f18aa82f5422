"""The worker's boot: the snapshot, the way without it, and what each loads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from py_engine.tooling.server import SiteServer
from py_engine.tooling.site import Site
from tests.browser.conftest import ServeAltered, StartWorker
from tests.support.engine_worker import EngineWorker, WorkerError
from tests.support.site_server import RecordingServer

BOOT_INFO = """
from pywebllm_worker import bootInfo
{"mode": bootInfo.mode, "error": bootInfo.snapshotError, "seconds": bootInfo.seconds}
"""
ALWAYS_LOADED = {
    "/worker/blob_thread.mjs",
    "/worker/boot.mjs",
    "/worker/buffers.mjs",
    "/worker/gpu_bridge.mjs",
    "/worker/libraries.mjs",
    "/worker/tokenizers.mjs",
    "/worker/xgrammar.mjs",
    "/pyodide/pyodide.mjs",
    "/pyodide/pyodide.asm.mjs",
    "/pyodide/pyodide.asm.wasm",
    "/pyodide/pyodide-lock.json",
    "/pyodide/python_stdlib.zip",
}
START_WORKER_AND_ASK = """async ({ messages, expected }) => {
    const worker = new Worker('/worker/web_worker.mjs', { type: 'module' });
    const answers = [];
    const all = new Promise((resolve, reject) => {
        worker.onerror = ({ message }) => reject(new Error(message));
        worker.onmessage = ({ data }) => {
            answers.push(data);
            if (answers.length === expected) resolve(answers);
        };
    });
    for (const message of messages) worker.postMessage(message); // long before Python is there
    return all.finally(() => worker.terminate());
}"""


def loaded(server: RecordingServer) -> set[str]:
    """Return what was loaded once, leaving out the tests' own files."""
    counts = Counter(path for path in server.paths() if not path.startswith("/test-support/"))
    assert all(count == 1 for path, count in counts.items() if "asm" not in path), counts
    return set(counts) - {"/favicon.ico"}


def test_snapshot_boot_loads_no_python_source(
    start_worker: StartWorker, server: RecordingServer
) -> None:
    info = start_worker(server.url).run(BOOT_INFO)
    assert (info["mode"], info["error"]) == ("snapshot", "")
    assert info["seconds"] > 0
    assert loaded(server) == ALWAYS_LOADED | {"/boot.snap.gz"}


def test_plain_boot_loads_one_archive(start_worker: StartWorker, server: RecordingServer) -> None:
    info = start_worker(server.url, plain=True).run(BOOT_INFO)
    assert (info["mode"], info["error"]) == ("plain", "")
    assert loaded(server) == ALWAYS_LOADED | {"/py_engine.zip"}


@pytest.mark.parametrize("plain", [False, True], ids=["snapshot", "plain"])
def test_all_modules_are_imported_after_boot(
    start_worker: StartWorker, server: RecordingServer, plain: bool
) -> None:
    def imported() -> list[Any]:
        import sys

        from py_engine import snapshot

        names = ("py_engine.rpc.worker_main", "py_engine.gpu.webgpu", "jinja2.sandbox")
        return [snapshot.not_imported, [name for name in names if name not in sys.modules]]

    assert start_worker(server.url, plain).run(imported) == [{}, []]


@pytest.mark.parametrize(
    "damage",
    ["flipped", "missing", *(pytest.param(n, marks=pytest.mark.sampled) for n in ("cut", "page"))],
)
def test_boot_without_a_good_snapshot(
    start_worker: StartWorker, serve_altered: ServeAltered, site: Site, damage: str
) -> None:
    good = (site.folder / "boot.snap.gz").read_bytes()
    middle = len(good) // 2
    bad = {
        "cut": good[:middle],
        "flipped": good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :],
        "page": b"<!doctype html>",
        "missing": None,
    }[damage]
    worker = start_worker(serve_altered({"boot.snap.gz": bad}).url)
    info = worker.run(BOOT_INFO)
    assert info["mode"] == "plain"
    assert info["error"]
    assert worker.run("from py_engine import errors; errors.MLCError.__name__") == "MLCError"


def test_restored_workers_draw_different_random_numbers(
    start_worker: StartWorker, server: RecordingServer
) -> None:
    drawn = [start_worker(server.url).run("import random; random.random()") for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_package_data_and_source_lines_outlive_the_snapshot(engine_worker: EngineWorker) -> None:
    def read() -> list[Any]:
        import linecache
        from importlib.resources import files

        from py_engine import errors

        text = files("py_engine").joinpath("errors.py").read_text()
        return [text.splitlines()[0], linecache.getline(errors.__file__, 1).strip()]

    first, from_traceback = engine_worker.run(read)
    assert first == from_traceback
    assert first.startswith('"""')


def test_numpy_comes_from_our_server_when_asked_for(
    start_worker: StartWorker, server: RecordingServer
) -> None:
    async def use_numpy() -> list[Any]:
        import pyodide_js

        await pyodide_js.loadPackage("numpy")
        import numpy

        return [numpy.__version__, int(numpy.arange(5).sum())]

    worker = start_worker(server.url)
    worker.run(BOOT_INFO)
    assert not any("numpy" in path for path in server.paths())
    version, total = worker.run(use_numpy)
    assert total == 10
    assert [path for path in server.paths() if "numpy" in path] == [
        f"/pyodide/numpy-{version}-cp314-cp314-pyemscripten_2026_0_wasm32.whl"
    ]


def test_tokenizers_library_is_loaded_when_asked_for(
    start_worker: StartWorker, server: RecordingServer
) -> None:
    async def load() -> str:
        import pywebllm_worker

        return str((await pywebllm_worker.loadTokenizers()).Tokenizer.name)

    worker = start_worker(server.url)
    worker.run(BOOT_INFO)
    files = ["/tokenizers/index.mjs", "/tokenizers/index.wasm"]
    assert not {*files} & {*server.paths()}
    assert worker.run(load) == worker.run(load) == "Tokenizer"
    assert [server.paths().count(file) for file in files] == [1, 1]


def test_errors_in_the_worker_carry_its_traceback(engine_worker: EngineWorker) -> None:
    with pytest.raises(WorkerError, match=r"(?s)Traceback.*1 / 0.*ZeroDivisionError"):
        engine_worker.run("x = 1\n1 / 0")


def test_messages_sent_during_boot_are_answered_in_order(
    page: Page, server: RecordingServer
) -> None:
    page.goto("/build.json")
    kinds = ["getMessage", "interruptGenerate"]
    messages = [{"kind": kind, "uuid": kind, "content": {"modelId": "none"}} for kind in kinds]
    answers = page.evaluate(START_WORKER_AND_ASK, {"messages": messages, "expected": len(messages)})
    assert {answer["uuid"] for answer in answers} == set(kinds)


def test_failed_boot_rejects_every_request_with_the_reason(
    page: Page, serve_altered: ServeAltered
) -> None:
    broken = serve_altered({"boot.snap.gz": None, "py_engine.zip": None})
    page.goto(f"{broken.url}/build.json")
    requests = [{"kind": "reload", "uuid": str(number), "content": {}} for number in range(2)]
    answers = page.evaluate(START_WORKER_AND_ASK, {"messages": requests, "expected": 3})
    assert {answer["kind"] for answer in answers} == {"throw"}
    assert [answer["uuid"] for answer in answers] == ["", "0", "1"]
    assert answers[0]["error"]["name"] == "WorkerFailedError"
    assert "py_engine.zip could not be fetched: HTTP 404" in answers[0]["content"]


def test_nothing_is_asked_of_another_host(page: Page, server: RecordingServer) -> None:
    requested: list[str] = []
    page.context.on("request", lambda request: requested.append(request.url))
    page.goto("/")
    page.wait_for_function("['ready', 'error'].includes(document.documentElement.dataset.state)")
    messages = [{"kind": "getMessage", "uuid": "1", "content": {"modelId": "none"}}]
    page.evaluate(START_WORKER_AND_ASK, {"messages": messages, "expected": len(messages)})
    inside_worker = f"{server.url}/boot.snap.gz"
    assert any(url.startswith(inside_worker) for url in requested), "the worker was not recorded"
    allowed = (f"{server.url}/", "blob:", "data:")
    assert [url for url in requested if not url.startswith(allowed)] == []


def test_site_works_below_any_address(page: Page, site: Site, tmp_path: Path) -> None:
    statuses: dict[str, int] = {}
    mounts = {"/some/where/": site.folder}
    with SiteServer(tmp_path, mounts=mounts, on_request=statuses.__setitem__) as server:
        page.goto(f"{server.url}/some/where/?autoload=1")
        page.wait_for_function(
            "['loaded', 'error'].includes(document.documentElement.dataset.state)", timeout=120_000
        )
        assert page.evaluate("document.documentElement.dataset.state") == "loaded"
        page.close()
    assert [target for target in statuses if not target.startswith("/some/where/")] == []
    assert set(statuses.values()) <= {200, 304}
