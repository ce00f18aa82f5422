"""Stored models in Chromium: every kind of store, tabs that are closed, two tabs, no room."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import StartWorker
from tests.support.engine_worker import EngineWorker, WorkerError
from tests.support.faulty_files import Answer, FaultyFiles
from tests.support.faulty_server import FaultyServer, faulty_server
from tests.support.site_server import RecordingServer

KILLS = int(os.environ.get("PYWEBLLM_KILLED_LOADS", "2"))
"""How many loads the test that kills them kills."""

PIECE_BYTES = 1 << 16

WEIGHTS = {
    "params_shard_0.bin": random.Random(1).randbytes(900_000),
    "params_shard_1.bin": random.Random(2).randbytes(70_001),
}
CONFIG = {"mlc-chat-config.json": b'{"model_type": "llama"}'}
BACKENDS = ["opfs", "indexeddb", "cache"]


def manifest(files: dict[str, bytes], pieces: bool) -> bytes:
    entries: dict[str, dict[str, Any]] = {}
    for path, data in files.items():
        entries[path] = {"size": len(data), "sha256": sha256(data)}
        if pieces:
            parts = [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
            entries[path] |= {"piece_bytes": PIECE_BYTES, "pieces": [*map(sha256, parts)]}
    return json.dumps({"version": 1, "files": entries}).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def model_files(pieces: bool = False, **options: Any) -> FaultyFiles:
    files = {**CONFIG, **WEIGHTS}
    undamaged = ("model-manifest.json",)
    files["model-manifest.json"] = manifest(files, pieces)
    return FaultyFiles(files, undamaged=undamaged, **options)


@pytest.fixture(scope="module")
def tabs(
    browser: Browser, session_server: RecordingServer
) -> Iterator[tuple[EngineWorker, EngineWorker]]:
    """The workers of two tabs of one browser profile, which is not the other tests'."""
    first = EngineWorker(browser, session_server.url)
    second = EngineWorker(browser, session_server.url, neighbour=first)
    yield first, second
    second.close()
    first.close()


@pytest.fixture
def models() -> Iterator[FaultyServer]:
    """A server of one sound model."""
    with faulty_server(model_files()) as server:
        yield server


async def load(url: str, backend: str = "opfs", in_thread: bool = False) -> list[Any]:
    """Load a model in pieces of 64 KiB; return the store, hashes of its weights, and progress.

    With `in_thread`, a thread reads short ranges of OPFS, too.
    """
    import hashlib

    from py_engine.storage import opfs_browser
    from py_engine.storage.fetch_browser import FetchSource
    from py_engine.storage.fetcher import RetryPolicy
    from py_engine.storage.platform_browser import open_storage

    opfs_browser._FOR_THREAD_BYTES = 0 if in_thread else 1 << 20
    policy = RetryPolicy(attempts=30, base_s=0.01, longest_s=0.05, stall_s=0.5)
    storage = await open_storage(backend, policy=policy)
    if hasattr(storage, "downloader"):
        storage.downloader.piece_bytes = 1 << 16
    source = storage.open(FetchSource(url))
    config = await source.read_json("mlc-chat-config.json")
    paths = ["params_shard_0.bin", "params_shard_1.bin"]
    seen = [0]
    if hasattr(source, "download"):
        await source.download(paths, seen.append)
    found = {}
    for path in paths:
        size, digest = await source.size(path), hashlib.sha256()
        for begin in range(0, size, 100_000):
            part = await source.read_range(path, begin, min(begin + 100_000, size))
            digest.update(part.to_bytes())
        found[path] = digest.hexdigest()
    return [storage.backend, config, found, seen[-1]]


def loaded(backend: str) -> list[Any]:
    hashes = {path: sha256(data) for path, data in WEIGHTS.items()}
    return [backend, {"model_type": "llama"}, hashes, sum(map(len, WEIGHTS.values()))]


async def stored(url: str, backend: str, delete: bool) -> list[Any]:
    """Return what a store tells of a model, before and after it is deleted."""
    from py_engine.storage.platform_browser import open_storage

    storage = await open_storage(backend)
    if delete:
        await storage.delete(url)
    models = [model for model in await storage.models() if model.url == url]
    listed = [[model.files, model.total_bytes, model.is_complete] for model in models]
    return [listed, await storage.has(url), await storage.has(url, ["params_shard_0.bin"])]


@pytest.mark.parametrize("backend", BACKENDS)
def test_model_is_stored_listed_and_deleted(
    engine_worker: EngineWorker, models: FaultyServer, backend: str
) -> None:
    assert engine_worker.run(load, url=models.url, backend=backend) == loaded(backend)
    models.files.asked.clear()
    assert engine_worker.run(load, url=models.url, backend=backend) == loaded(backend)
    assert {path for path, *_ in models.files.asked} == {"model-manifest.json"}
    found = engine_worker.run(stored, url=models.url, backend=backend, delete=False)
    sizes = {path: len(data) for path, data in models.files.files.items()}
    assert found == [[[sizes, sum(sizes.values()), True]], True, True]
    found = engine_worker.run(stored, url=models.url, backend=backend, delete=True)
    assert found == [[], False, False]


def test_browsers_that_lack_storage(
    start_worker: StartWorker, server: RecordingServer, models: FaultyServer
) -> None:
    def without_access_handles() -> None:
        import js

        js.Reflect.deleteProperty(js.globalThis, "FileSystemSyncAccessHandle")

    def without_opfs() -> None:
        import js

        refusal = js.Promise.reject.bind(js.Promise, js.DOMException.new("no", "SecurityError"))
        js.StorageManager.prototype.getDirectory = refusal

    def without(names: list[str]) -> None:
        import js

        for name in names:
            js.Object.defineProperty(js.globalThis, name, js.JSON.parse('{"value": null}'))

    worker = start_worker(server.url)
    worker.run(without_access_handles)
    assert worker.run(load, url=models.url) == loaded("opfs")
    worker.run(without_opfs)
    assert worker.run(load, url=models.url) == loaded("indexeddb")
    worker.run(without, names=["indexedDB"])
    assert worker.run(load, url=models.url) == loaded("cache")
    worker.run(without, names=["caches"])
    assert worker.run(load, url=models.url) == [*loaded("none")[:3], 0]


def test_browser_that_starts_no_threads(
    start_worker: StartWorker, server: RecordingServer, models: FaultyServer
) -> None:
    def without_threads() -> None:
        import js

        js.Reflect.deleteProperty(js.globalThis, "Worker")

    worker = start_worker(server.url)
    worker.run(without_threads)
    assert worker.run(load, url=models.url, in_thread=True) == loaded("opfs")
    assert worker.run(stored, url=models.url, backend="opfs", delete=True)[0] == []


def test_thread_that_writes_blobs_ends_when_it_has_nothing_to_do(
    start_worker: StartWorker, server: RecordingServer
) -> None:
    async def story() -> list[Any]:
        import asyncio

        from pyodide.code import run_js

        from py_engine.storage.opfs_browser import OpfsBlobs

        started = run_js("""
            const started = [];
            self.Worker = class extends Worker {
                constructor(...details) { super(...details); started.push(this); }
            };
            const wait = setTimeout;
            self.setTimeout = (call, ms, ...rest) => wait(call, ms === 10_000 ? 0 : ms, ...rest);
            started
        """)
        blobs = await OpfsBlobs.open()
        await asyncio.gather(*(blobs.put("folder", str(i), bytes([i])) for i in range(3)))
        n_at_once = len(started)
        await asyncio.sleep(0.1)
        await blobs.put("folder", "3", bytes([3]))
        found = [(await blobs.get("folder", str(i))).to_bytes() for i in range(4)]
        await blobs.delete("folder")
        return [n_at_once, len(started), found]

    found = start_worker(server.url).run(story)
    assert found == [1, 2, [bytes([i]) for i in range(4)]]


def test_memory_that_is_used_again(start_worker: StartWorker, server: RecordingServer) -> None:
    async def story() -> list[Any]:
        import asyncio
        import random

        from pyodide.code import run_js

        from py_engine.storage.host_bytes import reuse
        from py_engine.storage.opfs_browser import OpfsBlobs

        made = run_js("""
            const made = [];
            self.ArrayBuffer = new Proxy(ArrayBuffer, {
                construct(target, [nbytes]) {
                    made.push(nbytes);
                    return new target(nbytes);
                },
            });
            made
        """)
        blobs, size, places = await OpfsBlobs.open(), 1 << 20, range(20)
        pieces = [random.Random(i).randbytes(size + 7) for i in places]
        for i in places:
            await blobs.put("folder", str(i), pieces[i])
        made.length = 0
        found = []
        for some in (places[:5], places[5:10], places[10:15], places[15:]):
            read = await asyncio.gather(*(blobs.get("folder", str(i), 3, size + 3) for i in some))
            found += [
                data.to_bytes() == pieces[i][3:-4] for i, data in zip(some, read, strict=True)
            ]
            for data in read:
                reuse(data)
        n_made = made.to_py().count(size)
        beyond = await blobs.get("folder", "3", 5, 2 * size)
        gone = await blobs.get("folder", "none", 0, size)
        await blobs.delete("folder")
        return [found, n_made, beyond.to_bytes() == pieces[3][5:], gone]

    assert start_worker(server.url).run(story) == [[True] * 20, 5, True, None]


def test_blob_that_is_open_is_deleted_when_it_is_closed(engine_worker: EngineWorker) -> None:
    async def story() -> list[str]:
        import asyncio

        from py_engine.storage.opfs_browser import OpfsBlobs

        blobs = await OpfsBlobs.open()
        await blobs.put("folder", "blob", b"one")
        folder = await blobs._root.getDirectoryHandle("folder")
        access = await (await folder.getFileHandle("blob")).createSyncAccessHandle()
        deleting = asyncio.ensure_future(blobs.delete("folder"))
        await asyncio.sleep(0.3)
        assert not deleting.done()
        access.close()
        await deleting
        return await blobs.names("folder")

    assert engine_worker.run(story) == []


def test_caches_that_are_refused(
    start_worker: StartWorker, server: RecordingServer, models: FaultyServer
) -> None:
    """As in private windows of some browsers, which have OPFS all the same."""

    def refuse() -> None:
        import js

        refusal = js.Promise.reject.bind(js.Promise, js.DOMException.new("no", "SecurityError"))
        for name in ("match", "has", "open"):
            js.Reflect.set(js.CacheStorage.prototype, name, refusal)

    worker = start_worker(server.url)
    worker.run(refuse)
    assert worker.run(load, url=models.url) == loaded("opfs")
    assert worker.run(stored, url=models.url, backend="opfs", delete=True)[0] == []


def test_blob_that_another_tab_wrote_anew(engine_worker: EngineWorker) -> None:
    async def story() -> list[Any]:
        from py_engine.storage.opfs_browser import OpfsBlobs

        first, second = await OpfsBlobs.open(), await OpfsBlobs.open()
        await first.put("folder", "blob", b"one")
        found = [(await first.get("folder", "blob")).to_bytes()]
        await second.delete("folder", ["blob"])
        await second.put("folder", "blob", b"another")
        found.append((await first.get("folder", "blob", 1, 5)).to_bytes())
        await second.delete("folder")
        return [*found, await first.get("folder", "blob")]

    assert engine_worker.run(story) == [b"one", b"noth", None]


@pytest.mark.parametrize("backend", BACKENDS)
def test_write_that_is_cancelled_is_over(engine_worker: EngineWorker, backend: str) -> None:
    """Else it would bring back what is deleted after, or keep a file locked."""

    async def story(backend: str) -> list[Any]:
        import asyncio

        from py_engine.storage.platform_browser import open_storage

        blobs = (await open_storage(backend)).files.blobs
        found: list[Any] = []
        for turns in range(4):
            write = asyncio.ensure_future(blobs.put("folder", "blob", bytes(4 << 20)))
            for _ in range(turns):
                await asyncio.sleep(0)
            write.cancel()
            await asyncio.gather(write, return_exceptions=True)
            await blobs.delete("folder")
            await asyncio.sleep(0.1)
            found.append([write.cancelled(), list(await blobs.names("folder"))])
        return found

    assert engine_worker.run(story, backend=backend) == [[True, []]] * 4


def test_lock_that_the_browser_refuses(start_worker: StartWorker, server: RecordingServer) -> None:
    async def hold() -> None:
        import asyncio

        import js

        from py_engine.storage.locks_browser import WebLocks

        refusal = js.Promise.reject.bind(js.Promise, js.DOMException.new("no", "SecurityError"))
        js.LockManager.prototype.request = refusal
        async with asyncio.timeout(10), WebLocks().hold("a"):
            pass

    with pytest.raises(WorkerError, match=r"StorageError: .* \(SecurityError: no\)"):
        start_worker(server.url).run(hold)


class EveryFault(FaultyFiles):
    """Goes wrong at every other request for weights, in each way once."""

    def answer(self, path: str, begin: int | None, end: int) -> Answer | None:
        left = [fault for fault in self.FAULTS if not self.counts[fault]]
        is_turn = path in WEIGHTS and left and len(self.asked) % 2
        self.rate, self.faults = float(bool(is_turn)), tuple(left[:1])
        return super().answer(path, begin, end)


def test_server_that_goes_wrong(engine_worker: EngineWorker) -> None:
    files = EveryFault(model_files().files)
    with faulty_server(files) as server:
        assert engine_worker.run(load, url=server.url) == loaded("opfs")
        assert engine_worker.run(stored, url=server.url, backend="opfs", delete=True)[0] == []
    assert {fault for fault, n in files.counts.items() if n} == {"none", *FaultyFiles.FAULTS}


async def pieces(url: str) -> list[list[Any]]:
    """Return [path, index] of all pieces in the store."""
    from py_engine.storage.platform_browser import open_storage

    storage = await open_storage()
    files = [file for file in await storage.files.files() if file.record.url == url]
    return [[file.record.path, index] for file in files for index in file.pieces]


def test_killed_loads_go_on(tabs: tuple[EngineWorker, EngineWorker]) -> None:
    worker, _ = tabs
    rng = random.Random(7)
    files = model_files(pieces=True, seed=7, rate=0.15)
    with faulty_server(files, delay_s=0.02) as models:
        killed = finished = 0
        while killed < KILLS:
            there = {(path, index) for path, index in worker.run(pieces, url=models.url)}
            files.asked.clear()
            worker.begin(load, url=models.url, in_thread=True)
            time.sleep(rng.uniform(0.05, 1.0))
            worker.reboot()
            killed += 1
            asked = {(path, (begin or 0) // PIECE_BYTES) for path, begin, _ in files.asked}
            assert not there & asked - {("model-manifest.json", 0)}
            if worker.run(stored, url=models.url, backend="opfs", delete=False)[1]:
                finished += 1
                assert worker.run(load, url=models.url, in_thread=True) == loaded("opfs")
                worker.run(stored, url=models.url, backend="opfs", delete=True)
        assert worker.run(load, url=models.url, in_thread=True) == loaded("opfs")
        print(f"{killed} loads killed, {finished} of them after their last byte was stored")
        worker.run(stored, url=models.url, backend="opfs", delete=True)


def test_two_tabs_download_a_model_once(tabs: tuple[EngineWorker, EngineWorker]) -> None:
    first, second = tabs
    with faulty_server(model_files(), delay_s=0.03) as models:
        second.run("1")
        first.begin(load, url=models.url, in_thread=True)
        assert second.run(load, url=models.url, in_thread=True) == loaded("opfs")
        ranges = [asked for asked in models.files.asked if asked[0] in WEIGHTS]
        assert len(ranges) == len(set(ranges)) == 14 + 2
        first.run(stored, url=models.url, backend="opfs", delete=True)


async def read_until_gone(url: str) -> None:
    """Read a stored file again and again, all pieces at a time; tell when it was deleted."""
    import asyncio

    import js

    from py_engine.storage import opfs_browser
    from py_engine.storage.platform_browser import open_storage
    from py_engine.storage.store import LostPieceError

    opfs_browser._FOR_THREAD_BYTES = 0
    file = await (await open_storage("opfs")).files.find(url, "params_shard_0.bin")
    n_read = 0
    try:
        while True:
            await asyncio.gather(*(file.read(*file.span(i)) for i in range(file.n_pieces)))
            n_read += 1
    except LostPieceError:
        js.roundsBeforeItWasGone = n_read


def test_model_is_deleted_while_another_tab_reads_it(
    tabs: tuple[EngineWorker, EngineWorker], models: FaultyServer
) -> None:
    first, second = tabs
    first.run(load, url=models.url)
    second.run("1")
    second.begin(read_until_gone, url=models.url)
    time.sleep(0.5)
    found = first.run(stored, url=models.url, backend="opfs", delete=True)
    assert found == [[], False, False]
    second.page.wait_for_timeout(200)
    assert second.run("import js\njs.roundsBeforeItWasGone") > 0


def test_waiting_tab_goes_on_when_the_other_is_closed(
    tabs: tuple[EngineWorker, EngineWorker],
) -> None:
    first, second = tabs
    with faulty_server(model_files(), delay_s=0.3) as models:
        first.run("1")
        first.begin(load, url=models.url)
        while len(models.files.asked) < 6:
            time.sleep(0.02)
        models.delay_s = 60.0  # the first tab gets no further, however slow the second one is
        with pytest.raises(WorkerError, match=r"StorageBusyError: .* is being downloaded"):
            second.run(stored, url=models.url, backend="opfs", delete=True)
        models.delay_s = 0.0
        second.begin(load, url=models.url)
        first.reboot()
        assert second.run(load, url=models.url) == loaded("opfs")


def test_model_that_does_not_fit_is_not_begun(
    start_worker: StartWorker, server: RecordingServer, models: FaultyServer
) -> None:
    def leave_room(n_bytes: int) -> None:
        import js

        estimate = js.JSON.parse(f'{{"usage": 0, "quota": {n_bytes}}}')
        js.StorageManager.prototype.estimate = js.Promise.resolve.bind(js.Promise, estimate)

    worker = start_worker(server.url)
    worker.run(leave_room, n_bytes=500_000)
    with pytest.raises(WorkerError, match=r"needs 1 MB more, but the browser .* only 0 MB"):
        worker.run(load, url=models.url)
    assert not [path for path, *_ in models.files.asked if path in WEIGHTS]


def test_store_that_becomes_full_keeps_what_fitted(
    tabs: tuple[EngineWorker, EngineWorker], session_server: RecordingServer
) -> None:
    worker, _ = tabs
    worker.reboot()
    devtools = worker.page.context.new_cdp_session(worker.page)
    origin = {"origin": session_server.url}
    quota = {**origin, "quotaSize": used(worker) + 500_000}
    devtools.send("Storage.overrideQuotaForOrigin", quota)
    with faulty_server(model_files(pieces=True)) as models:
        with pytest.raises(WorkerError, match=r"StorageFullError: .* what was downloaded is kept"):
            worker.run(load, url=models.url)
        there = {(path, index) for path, index in worker.run(pieces, url=models.url)}
        assert len(there) > 3
        devtools.send("Storage.overrideQuotaForOrigin", origin)
        models.files.asked.clear()
        assert worker.run(load, url=models.url) == loaded("opfs")
        asked = {(path, (begin or 0) // PIECE_BYTES) for path, begin, _ in models.files.asked}
        assert not there & asked - {("model-manifest.json", 0)}


def used(worker: EngineWorker) -> int:
    async def usage() -> int:
        import js

        return (await js.navigator.storage.estimate()).usage

    return int(worker.run(usage))


def test_what_webllm_downloaded_is_found(engine_worker: EngineWorker, models: FaultyServer) -> None:
    async def keep(url: str, files: dict[str, bytes]) -> None:
        import js

        from py_engine.storage.bytes_browser import array_of

        cache = await js.caches.open("webllm/model")
        for path, data in files.items():
            await cache.put(url + path, js.Response.new(array_of(data)))

    engine_worker.run(keep, url=models.url, files=WEIGHTS)
    assert engine_worker.run(stored, url=models.url, backend="opfs", delete=False) == [
        [],
        False,
        True,
    ]
    assert engine_worker.run(load, url=models.url) == loaded("opfs")
    assert not [path for path, *_ in models.files.asked if path in WEIGHTS]
    assert engine_worker.run(stored, url=models.url, backend="opfs", delete=True)[2] is False


def test_cross_origin_storage(
    start_worker: StartWorker, server: RecordingServer, models: FaultyServer
) -> None:
    def offer() -> None:
        import js

        code = """
            const folder = navigator.storage.getDirectory().then(
                (top) => top.getDirectoryHandle('shared', { create: true }));
            const requestFileHandle = async ({ algorithm, value }, { create = false } = {}) =>
                (await folder).getFileHandle(`${algorithm}-${value}`, { create });
            const requestFileHandles = async ([hash], options) =>
                [await requestFileHandle(hash, options)];
            navigator.crossOriginStorage = form === 1 ? { requestFileHandle }
                : { requestFileHandles };
        """
        js.globalThis.offer = js.Function.new("form", code)

    def choose(form: int) -> None:
        import js

        js.globalThis.offer(form)

    worker = start_worker(server.url)
    assert worker.run(load, url=models.url, backend="cross-origin")[0] == "opfs"
    worker.run(stored, url=models.url, backend="opfs", delete=True)
    worker.run(offer)
    for form in (1, 2):
        worker.run(choose, form=form)
        models.files.asked.clear()
        found = worker.run(load, url=models.url, backend="cross-origin")
        assert found == loaded("cross-origin")
        paths = {path for path, *_ in models.files.asked}
        assert bool(paths & {*WEIGHTS}) == (form == 1)
        worker.run(stored, url=models.url, backend="cross-origin", delete=True)
