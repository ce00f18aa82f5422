"""Stored models: loaded without a network, shared by tabs, listed, deleted, checked for room."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pytest

from py_engine.errors import (
    AccessDeniedError,
    IntegrityError,
    MissingFileError,
    ModelFileFormatError,
    NetworkError,
    StorageBusyError,
    StorageError,
    StorageFullError,
    TruncatedFileError,
)
from py_engine.storage.fetcher import Fetcher, RetryPolicy
from py_engine.storage.identity import Identity
from py_engine.storage.locks import LocalLocks
from py_engine.storage.model_storage import ModelStorage
from py_engine.storage.store import FileStore, folder_of
from py_engine.storage.stored_source import StoredSource
from py_engine.storage.unstored import NoStorage
from tests.support.faulty_files import FaultyFiles
from tests.support.memory_storage import (
    URL,
    MemoryBlobs,
    MemoryRoom,
    MemoryTransport,
    OtherFiles,
    RemoteFiles,
    Waits,
    memory_storage,
    sha256,
)

T = TypeVar("T")

WEIGHTS = random.Random(1).randbytes(5_500)
FILES = {"config.json": b'{"n": 1}', "a.bin": WEIGHTS, "b.bin": WEIGHTS[:2_500]}


class Site:
    """A server, and tabs of one site that share a store and locks."""

    def __init__(self, *, listed: bool = True, **server: Any) -> None:
        self.server = FaultyFiles(FILES, **server)
        self.listed = listed
        self.transport = MemoryTransport(self.server)
        self.blobs = MemoryBlobs()
        self.locks = LocalLocks()
        self.room = MemoryRoom()
        self.other: OtherFiles | None = None
        self.shared: Shared | None = None

    def tab(self) -> ModelStorage:
        return memory_storage(
            self.blobs,
            self.transport,
            locks=self.locks,
            room=self.room,
            other=self.other,
            shared=self.shared,
        )

    def source(self, tab: ModelStorage | None = None) -> StoredSource:
        return (tab or self.tab()).open(RemoteFiles(self.transport, listed=self.listed))

    def asked(self) -> list[str]:
        """Return the paths that were asked for since the last call."""
        found = [path for path, *_ in self.server.asked if path != "model-manifest.json"]
        self.server.asked.clear()
        return found


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


async def load(source: StoredSource) -> None:
    """Load the model as an engine does."""
    assert await source.read_json("config.json") == {"n": 1}
    await source.download(["a.bin", "b.bin"])
    assert await source.read_range("a.bin", 900, 3_100) == WEIGHTS[900:3_100]
    assert await source.read_bytes("b.bin") == WEIGHTS[:2_500]


@pytest.mark.parametrize("listed", [True, False])
def test_stored_model_loads_without_a_network(listed: bool) -> None:
    site = Site(listed=listed)
    run(load(site.source()))
    site.transport.online = False
    site.asked()
    run(load(site.source()))
    assert site.asked() == []


def test_listing_is_asked_for_once_without_a_network() -> None:
    site = Site()
    run(load(site.source()))
    site.transport.online = False
    waits = Waits()
    tab = memory_storage(site.blobs, site.transport, waits=waits)

    async def load_twice() -> None:
        source = site.source(tab)
        assert await source.list_files() == await source.list_files()
        await load(source)

    run(load_twice())
    assert len(waits.slept) == RetryPolicy().first_attempts - 1


def test_file_that_never_was_there_is_missing_without_a_network_too() -> None:
    site = Site(listed=False)

    async def missing() -> None:
        with pytest.raises(MissingFileError):
            await site.source().read_text("tensor-cache.json")

    run(missing())
    site.transport.online = False
    run(missing())


def test_file_that_was_not_loaded_is_not_called_missing_without_a_network() -> None:
    site = Site(listed=False)
    run(load(site.source()))
    site.transport.online = False
    with pytest.raises(NetworkError):
        run(site.source().read_text("tokenizer.json"))


def test_listed_hashes_need_no_requests() -> None:
    site = Site()
    run(load(site.source()))
    site.asked()
    run(load(site.source()))
    assert site.asked() == []


@pytest.mark.parametrize("has_etag", [True, False])
def test_files_without_hashes_are_compared_with_the_server(has_etag: bool) -> None:
    site = Site(listed=False, has_etag=has_etag)
    run(load(site.source()))
    site.server.files["config.json"] = b'{"n": 2}'
    site.asked()
    assert run(site.source().read_json("config.json")) == {"n": 2}
    run(site.source().download(["a.bin"]))
    assert site.asked().count("a.bin") == 1


def test_new_version_in_the_listing_replaces_the_stored_one() -> None:
    site = Site()
    run(load(site.source()))
    site.server.files["a.bin"] = bytes(7_000)
    assert run(site.source().read_bytes("a.bin")) == bytes(7_000)


def test_first_ranges_of_a_file_do_not_fetch_it_whole() -> None:
    site = Site()

    async def read() -> None:
        source = site.source()
        assert await source.size("a.bin") == 5_500
        assert await source.read_range("a.bin", 0, 8) == WEIGHTS[:8]
        assert await source.read_range("a.bin", 8, 800) == WEIGHTS[8:800]
        assert site.asked() == ["a.bin"]
        await source.download(["a.bin"])
        assert len(site.asked()) == 5

    run(read())


def test_reader_waits_for_the_file_that_is_being_downloaded() -> None:
    site = Site()
    seen: list[int] = []

    async def both() -> None:
        source = site.source()
        downloading = asyncio.ensure_future(source.download(["a.bin", "b.bin"], seen.append))
        await asyncio.sleep(0)
        assert await source.read_range("a.bin", 5, 5_000) == WEIGHTS[5:5_000]
        assert seen[-1] >= 5_500
        await downloading

    run(both())
    assert len(seen) > 8
    assert len(site.asked()) == 6 + 3


@pytest.mark.parametrize("listed", [True, False])
def test_reader_of_a_part_does_not_wait_for_the_rest(listed: bool) -> None:
    site = Site(listed=listed)

    async def both() -> None:
        source = site.source()
        downloading = asyncio.ensure_future(source.download(["a.bin"]))
        await asyncio.sleep(0)
        assert await source.read_range("a.bin", 5, 900) == WEIGHTS[5:900]
        assert not downloading.done()
        with pytest.raises(TruncatedFileError):
            await source.read_range("a.bin", 5_000, 5_501)
        assert await downloading, "what was given is what came to be stored"

    run(both())


def test_download_tells_when_a_part_was_given_that_was_wrong() -> None:
    site = Site(rate=1.0, faults=("corrupt",))

    async def both() -> None:
        source = site.source()
        downloading = asyncio.ensure_future(source.download(["a.bin", "b.bin"]))
        await asyncio.sleep(0)
        await source.read_range("a.bin", 0, 5_500)
        site.server.rate = 0.0
        assert not await downloading
        assert await source.read_bytes("a.bin") == WEIGHTS[:5_500]
        assert await source.download(["a.bin", "b.bin"])

    run(both())


def test_nothing_is_hashed_where_nobody_tells_a_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(listed=False)

    async def hash_blocks(*_: object) -> None:
        raise AssertionError("it was hashed")

    monkeypatch.setattr("py_engine.storage.identity.hash_blocks", hash_blocks)
    run(load(site.source()))
    run(load(site.source()))
    with pytest.raises(AssertionError, match="it was hashed"):
        run(load(Site(listed=True).source()))


def test_reader_goes_on_alone_when_the_download_is_cancelled() -> None:
    site = Site()

    async def both() -> None:
        source = site.source()
        downloading = asyncio.ensure_future(source.download(["a.bin", "b.bin"]))
        await asyncio.sleep(0)
        reading = asyncio.ensure_future(source.read_range("a.bin", 5, 5_000))
        while not site.blobs.pieces("a.bin"):
            await asyncio.sleep(0)
        downloading.cancel()
        assert await reading == WEIGHTS[5:5_000]

    run(both())
    assert site.transport.open == 0


def test_sizes_of_unlisted_files() -> None:
    site = Site(listed=False)
    source = site.source()
    assert run(source.size("b.bin")) == 2_500
    with pytest.raises(TruncatedFileError):
        run(source.read_range("b.bin", 2_000, 2_501))


def test_damage_in_a_range_that_was_read_early_is_reported() -> None:
    site = Site(rate=1.0, faults=("corrupt",))

    async def read() -> None:
        source = site.source()
        await source.read_range("a.bin", 0, 1_000)
        site.server.rate = 0.0
        await source.download(["a.bin"])

    with pytest.raises(IntegrityError, match=r"bytes 0 to 1000, which came damaged at first"):
        run(read())
    run(load(site.source()))


def test_server_that_refuses_what_it_does_not_have() -> None:
    site = Site(listed=False, missing=403)
    run(load(site.source()))
    with pytest.raises(AccessDeniedError, match=r"tensor-cache\.json is not public \(HTTP 403\)"):
        run(site.source().read_text("tensor-cache.json"))
    site.transport.online = False
    run(load(site.source()))
    with pytest.raises(MissingFileError):
        run(site.source().read_text("tensor-cache.json"))


def test_refusal_of_a_stored_file_does_not_delete_it() -> None:
    site = Site(listed=False, missing=403)
    run(load(site.source()))
    site.server.files.clear()
    run(load(site.source()))


def test_text_that_is_no_text() -> None:
    site = Site()
    site.server.files["config.json"] = b"\xff\xfe"
    with pytest.raises(ModelFileFormatError, match="is not UTF-8 text: byte 0"):
        run(site.source().read_text("config.json"))


def test_two_tabs_download_a_model_once() -> None:
    site = Site()

    async def both() -> None:
        await asyncio.gather(load(site.source()), load(site.source()))

    run(both())
    assert sorted(site.asked()) == ["a.bin"] * 6 + ["b.bin"] * 3 + ["config.json"]


def test_waiting_tab_goes_on_when_the_other_is_closed() -> None:
    site = Site()

    async def both() -> None:
        first = asyncio.ensure_future(load(site.source()))
        second = asyncio.ensure_future(load(site.source()))
        while len(site.blobs.pieces("a.bin")) < 2:
            await asyncio.sleep(0)
        first.cancel()
        await second

    run(both())
    assert site.transport.open == 0


def test_deleted_files_are_fetched_again_by_a_tab_that_reads_them() -> None:
    site = Site()

    async def read() -> None:
        source = site.source()
        await load(source)
        await site.tab().delete(URL)
        assert await source.read_range("a.bin", 10, 5_500) == WEIGHTS[10:]

    run(read())


def test_deleted_files_are_fetched_again_by_several_readers() -> None:
    site = Site()

    async def read() -> None:
        source = site.source()
        await load(source)
        await site.tab().delete(URL)
        site.asked()
        spans = [(10, 3_500), (10, 5_500), (4_000, 5_000)]
        found = await asyncio.gather(*(source.read_range("a.bin", *span) for span in spans))
        assert found == [WEIGHTS[begin:end] for begin, end in spans]
        assert site.asked() == ["a.bin"] * 6

    run(read())


@pytest.mark.parametrize("times", [2, 9])
def test_files_that_are_deleted_again_and_again(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site()

    async def read() -> None:
        source = site.source()
        await load(source)
        left, get = [None] * times, MemoryBlobs.get

        async def delete_then_get(blobs: MemoryBlobs, folder: str, name: str, *span: Any) -> Any:
            is_read = span == (10, 900)
            if is_read and left:
                left.pop()
                await blobs.delete(folder)
            return await get(blobs, folder, name, *span)

        monkeypatch.setattr(MemoryBlobs, "get", delete_then_get)
        assert await source.read_range("a.bin", 10, 900) == WEIGHTS[10:900]

    if times == 2:
        run(read())
        return
    with pytest.raises(StorageError, match=r"a\.bin was deleted .* each of 3 times"):
        run(read())


def test_models_are_listed_and_deleted() -> None:
    site = Site(listed=False)

    async def story() -> None:
        tab = site.tab()
        source = site.source(tab)
        await source.read_range("a.bin", 0, 10)
        (model,) = await tab.models()
        assert (model.url, model.is_complete, model.stored_bytes) == (URL, False, 1_000)
        assert not await tab.has(URL)
        await load(source)
        (model,) = await tab.models()
        assert model.files == {path: len(data) for path, data in FILES.items()}
        assert model.stored_bytes == model.total_bytes == sum(map(len, FILES.values()))
        assert model.is_complete
        assert await tab.has(URL)
        assert await tab.has(URL, FILES)
        assert not await tab.has(URL, ["a.bin", "tokenizer.json"])
        assert await tab.delete(URL, ["b.bin"]) == 2_500
        assert not await tab.has(URL)
        assert await tab.delete(URL) >= 5_500
        assert (await tab.models(), site.blobs.data) == ([], {})

    run(story())


def test_model_that_is_half_there_is_not_complete() -> None:
    site = Site()
    run(load(site.source()))
    del site.blobs.data[folder_of(URL, "b.bin")]
    (model,) = run(site.tab().models())
    assert not model.is_complete
    assert model.total_bytes - model.stored_bytes == 2_500


def test_note_that_another_tab_is_writing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    run(load(site.source()))
    get = MemoryBlobs.get

    async def get_but_notes(blobs: MemoryBlobs, folder: str, name: str, *span: Any) -> Any:
        is_note = folder == folder_of(URL, "?wanted") and name.endswith(".piece")
        return None if is_note else await get(blobs, folder, name, *span)

    monkeypatch.setattr(MemoryBlobs, "get", get_but_notes)
    (model,) = run(site.tab().models())
    assert (model.stored_bytes, model.is_complete) == (sum(map(len, FILES.values())), False)
    run(load(site.source()))


def test_model_that_a_tab_downloads_is_not_deleted() -> None:
    site = Site()

    async def story() -> None:
        loading = asyncio.ensure_future(load(site.source()))
        while not site.blobs.pieces("a.bin"):
            await asyncio.sleep(0)
        with pytest.raises(StorageBusyError, match="being downloaded, here or in another tab"):
            await site.tab().delete(URL, ["a.bin"])
        await loading

    run(story())


def test_model_that_does_not_fit_is_refused_before_the_download() -> None:
    site = Site()
    run(load(site.source()))
    other_url = "https://models.test/other/"
    transport = MemoryTransport(FaultyFiles({"large.bin": bytes(9_000_000)}), base=other_url)
    site.room.free = 4_000_000
    storage = memory_storage(site.blobs, transport, room=site.room, piece_bytes=1 << 20)
    source = storage.open(RemoteFiles(transport, url=other_url))
    with pytest.raises(StorageFullError) as failure:
        run(source.download(["large.bin"]))
    message = str(failure.value)
    assert "needs 9 MB more, but the browser lets this site store only 4 MB" in message
    assert f"Delete a stored model: {URL} (0 MB)" in message
    assert transport.server.asked == []
    site.room.free = 9_000_000
    run(source.download(["large.bin"]))


@pytest.mark.parametrize("free", [0, -5_000])
def test_room_is_only_needed_for_what_is_missing(free: int) -> None:
    """A browser whose disk fills up lowers its quota, also below what it has stored."""
    site = Site()
    run(load(site.source()))
    site.room.free = free
    run(load(site.source()))


@pytest.mark.parametrize("listed", [True, False])
def test_stored_model_loads_from_a_full_disk(listed: bool) -> None:
    site = Site(listed=listed)
    run(load(site.source()))
    site.server.files["README.md"] = b"which changes the listing"
    site.blobs.capacity = 0
    run(load(site.source()))
    run(load(site.source()))


def test_damaged_store_is_downloaded_again() -> None:
    site = Site()
    run(load(site.source()))
    for blobs in site.blobs.data.values():
        for name in blobs:
            if name.endswith(".file"):
                blobs[name] = b"{"
    run(load(site.source()))


def test_what_another_program_stored_is_taken_once_it_is_verified() -> None:
    site = Site()
    damaged = b"?" + WEIGHTS[1:2_500]
    site.other = OtherFiles({f"{URL}a.bin": WEIGHTS, f"{URL}b.bin": damaged})
    assert run(site.tab().has(URL, ["a.bin", "b.bin"]))
    run(load(site.source()))
    assert sorted(site.asked()) == ["b.bin", "b.bin", "b.bin", "config.json"]
    run(site.tab().delete(URL, ["a.bin"]))
    assert site.other.files == {f"{URL}b.bin": damaged}
    run(site.tab().delete(URL))
    assert site.other.files == {}


class Shared:
    """Implements `SharedFiles`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.is_allowed = True

    async def has(self, digest: str) -> bool:
        return digest in self.files

    async def read(self, digest: str, begin: int, end: int) -> bytes | None:
        data = self.files.get(digest)
        return None if data is None else data[begin:end]

    async def put(self, digest: str, parts: AsyncIterator[bytes]) -> None:
        if not self.is_allowed:
            raise StorageError("the user does not want that")
        data = b"".join([part async for part in parts])
        assert digest == sha256(data)
        self.files[digest] = data


def test_shared_files_are_there_for_all_sites() -> None:
    site, other_site = Site(), Site()
    site.shared = other_site.shared = Shared()
    run(load(site.source()))
    assert sorted(site.shared.files.values()) == sorted(FILES.values())
    assert site.blobs.used() < 2_000
    site.asked()
    run(load(site.source()))
    run(load(other_site.source()))
    assert site.asked() + other_site.asked() == []
    assert run(other_site.tab().has(URL))
    site.shared.files.clear()
    assert not run(site.tab().has(URL))
    run(load(site.source()))
    assert len(site.asked()) == 6 + 3 + 1


def test_files_that_may_not_be_shared_stay_with_their_site(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    site.shared = Shared()
    site.shared.is_allowed = False
    run(load(site.source()))
    assert "a.bin stays with this site: the user does not want that" in caplog.text
    site.asked()
    run(load(site.source()))
    assert site.asked() == []


def test_without_a_store_models_load_all_the_same() -> None:
    server = FaultyFiles(FILES)
    remote = RemoteFiles(MemoryTransport(server))
    fails = iter([True, True, False])
    read_bytes = remote.read_bytes

    async def sometimes(path: str, on_bytes: Any = None) -> bytes:
        if next(fails, False):
            raise NetworkError("no network for now")
        return await read_bytes(path, on_bytes)

    remote.read_bytes = sometimes  # type: ignore[method-assign]
    waits = Waits()
    storage = NoStorage(Fetcher(remote.transport, clock=waits.clock()))

    async def story() -> None:
        source = storage.open(remote)
        assert (source.url, source.entry) == (URL, "")
        assert await source.read_bytes("a.bin") == WEIGHTS
        assert await source.read_range("a.bin", 5, 9) == WEIGHTS[5:9]
        assert await source.read_json("config.json") == {"n": 1}
        assert await source.size("b.bin") == 2_500
        assert (await source.list_files() or {}).keys() == FILES.keys()
        assert (await storage.models(), await storage.has(URL), await storage.delete(URL)) == (
            [],
            False,
            0,
        )

    run(story())
    assert len(waits.slept) == 2


def test_who_reads_a_file_while_it_comes_gets_pieces_from_memory() -> None:
    class Counting(MemoryBlobs):
        n_got = 0

        async def get(self, *where: Any, **span: Any) -> bytes | None:
            self.n_got += 1
            return await super().get(*where, **span)

    async def reads() -> list[int]:
        blobs, pieces = Counting(), [bytes([index]) * 100 for index in range(12)]
        whole = b"".join(pieces)
        file = await FileStore(blobs).create(URL, "a.bin", Identity(size=1_200), 100)
        for index, piece in enumerate(pieces):
            await file.write(index, piece)
        seen = []

        async def take(begin: int, end: int) -> None:
            before = blobs.n_got
            assert await file.take(begin, end) == whole[begin:end]
            seen.append(blobs.n_got - before)

        await take(1_100, 1_200)
        await take(1_100, 1_200)  # which memory has no more
        await take(1_010, 1_100)
        await take(0, 100)  # too long ago
        await take(850, 950)  # of two pieces
        await file.drop([7])
        await file.write(7, pieces[7])
        await take(700, 800)
        await file.finish({})
        await take(800, 900)
        return seen

    assert asyncio.run(reads()) == [0, 1, 0, 1, 2, 0, 1]
