"""Downloads in pieces: each way in which a server goes wrong, and what is made of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random

import pytest

from py_engine.errors import (
    AccessDeniedError,
    IntegrityError,
    MissingFileError,
    NetworkError,
    StorageFullError,
)
from py_engine.storage.fetcher import RetryPolicy
from py_engine.storage.identity import Identity
from py_engine.storage.stored_source import StoredSource
from tests.support.faulty_files import Answer, FaultyFiles
from tests.support.memory_storage import (
    MemoryBlobs,
    MemoryTransport,
    Waits,
    memory_source,
    sha256,
)

DATA = random.Random(5).randbytes(4_321)
OTHER_DATA = random.Random(6).randbytes(4_321)
WEIGHTS = "model.bin"


class Model:
    """One file on a server, one store, and tabs that load it."""

    def __init__(self, server: FaultyFiles, *, listed: bool = True, **options: object) -> None:
        self.server = server
        self.listed = listed
        self.options = options
        self.blobs = MemoryBlobs()
        self.waits = Waits()
        self.transport = MemoryTransport(server)

    def source(self) -> StoredSource:
        return memory_source(
            self.blobs, self.transport, listed=self.listed, waits=self.waits, **self.options
        )

    def load(self, path: str = WEIGHTS) -> bytes:
        """Load the file in a new tab."""

        async def load() -> bytes:
            source = self.source()
            await source.download([path])
            return await source.read_bytes(path)

        try:
            return asyncio.run(load())
        finally:
            assert self.transport.open == 0

    def asked(self) -> list[tuple[int | None, int]]:
        """Return the ranges of the weights that were asked for since the last call."""
        found = [(begin, end) for path, begin, end in self.server.asked if path == WEIGHTS]
        self.server.asked.clear()
        return found


class OnceFaulty(FaultyFiles):
    """Goes wrong in one way at one request for the weights."""

    def __init__(self, fault: str, at: int = 1, **options: object) -> None:
        super().__init__({WEIGHTS: DATA}, faults=(fault,), **options)  # type: ignore[arg-type]
        self._at = at

    def answer(self, path: str, begin: int | None, end: int) -> Answer | None:
        self._at -= path == WEIGHTS
        self.rate = float(path == WEIGHTS and self._at == 0)
        return super().answer(path, begin, end)


@pytest.mark.parametrize("fault", FaultyFiles.FAULTS)
@pytest.mark.parametrize("at", [1, 3])
def test_one_fault_is_survived(fault: str, at: int) -> None:
    model = Model(OnceFaulty(fault, at))
    assert model.load() == DATA
    assert model.server.counts[fault] == 1
    assert len(model.waits.slept) == (fault != "corrupt")


@pytest.mark.parametrize("fault", ["refuse", "drop", "stall", "http_416", "http_429", "http_503"])
def test_one_fault_is_survived_without_a_listing(fault: str) -> None:
    for at in range(1, 6):
        model = Model(OnceFaulty(fault, at), listed=False)
        assert model.load() == DATA


@pytest.mark.parametrize("fault", ["refuse", "drop", "stall", "corrupt", "http_429", "overlong"])
def test_one_fault_is_survived_without_ranges(fault: str) -> None:
    for at in (1, 2):
        assert Model(OnceFaulty(fault, at, ranges=False)).load() == DATA


def test_broken_connections_keep_what_came() -> None:
    model = Model(OnceFaulty("drop"), in_flight=1)
    assert model.load() == DATA
    first, second = model.asked()[:2]
    assert first == (0, 1000)
    assert 0 <= (second[0] or 0) < second[1] == 1000


def test_server_that_asks_to_wait_is_left_alone() -> None:
    model = Model(OnceFaulty("http_429"), in_flight=1)
    assert model.load() == DATA
    assert sum(model.waits.slept) >= 1


class Refusing(FaultyFiles):
    """Answers requests for the weights in one way, always."""

    def __init__(self, answer: Answer | None) -> None:
        super().__init__({WEIGHTS: DATA[:900]})
        self._answer = answer

    def answer(self, path: str, begin: int | None, end: int) -> Answer | None:
        self.asked.append((path, begin, end))
        return self._answer


@pytest.mark.parametrize(
    ("answer", "error", "message", "attempts"),
    [
        (None, NetworkError, "could not be fetched", 3),
        (Answer(503), NetworkError, "HTTP 503", 8),
        (Answer(429, b"", {"Retry-After": "9999"}), NetworkError, "HTTP 429", 1),
        (Answer(418), NetworkError, "HTTP 418", 1),
        (Answer(403), AccessDeniedError, "is not public (HTTP 403)", 1),
        (Answer(404), MissingFileError, "does not exist (HTTP 404)", 1),
        (Answer(206, b"x" * 600), NetworkError, "(8 attempts)", 8),
    ],
)
def test_server_that_stays_wrong(
    answer: Answer | None, error: type[Exception], message: str, attempts: int
) -> None:
    policy = RetryPolicy(progress_bytes=1 << 30)
    model = Model(Refusing(answer), in_flight=1, policy=policy)
    with pytest.raises(error) as failure:
        model.load()
    assert message in str(failure.value)
    assert len(model.asked()) == attempts
    waits = model.waits.slept
    assert waits == sorted(waits)


def test_file_that_is_always_wrong_is_not_fetched_for_ever() -> None:
    server = FaultyFiles({WEIGHTS: OTHER_DATA, "model-manifest.json": _manifest(DATA)})
    model = Model(server, listed=False)
    with pytest.raises(IntegrityError) as failure:
        model.load()
    assert failure.value.expected == sha256(DATA)
    assert failure.value.actual == sha256(OTHER_DATA)
    assert len(model.asked()) == 2 * 5


def test_only_the_damaged_piece_is_fetched_again_where_pieces_have_hashes() -> None:
    server = OnceFaulty("corrupt", at=3)
    server.files["model-manifest.json"] = _manifest(DATA, pieces=True)
    model = Model(server, listed=False, in_flight=1)
    assert model.load() == DATA
    begins = [begin for begin, _ in model.asked()]
    assert begins == [0, 1000, 2000, 2000, 3000, 4000]


def _manifest(data: bytes, pieces: bool = False) -> bytes:
    entry: dict[str, object] = {"size": len(data), "sha256": sha256(data)}
    if pieces:
        parts = [data[at : at + 1000] for at in range(0, len(data), 1000)]
        entry |= {"piece_bytes": 1000, "pieces": [sha256(part) for part in parts]}
    return json.dumps({"version": 1, "files": {WEIGHTS: entry}}).encode()


def test_damage_is_found_by_the_md5_of_an_mlc_index() -> None:
    index = {
        "records": [
            {"dataPath": WEIGHTS, "nbytes": len(DATA), "md5sum": hashlib.md5(DATA).hexdigest()}
        ]
    }
    server = OnceFaulty("corrupt", at=2)
    server.files["tensor-cache.json"] = json.dumps(index).encode()
    model = Model(server, listed=False)

    async def load() -> bytes:
        source = model.source()
        await source.read_json("tensor-cache.json")
        await source.download([WEIGHTS])
        return await source.read_bytes(WEIGHTS)

    assert asyncio.run(load()) == DATA
    assert len(model.asked()) == 2 * 5


def stopped_half_way(model: Model) -> None:
    """Load until three pieces are stored, then close the tab."""

    async def load() -> None:
        loading = asyncio.ensure_future(model.source().download([WEIGHTS]))
        while len(model.blobs.pieces(WEIGHTS)) < 3:
            await asyncio.sleep(0)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)

    asyncio.run(load())
    assert model.transport.open == 0
    model.asked()


@pytest.mark.parametrize("listed", [True, False])
def test_cancelled_download_goes_on(listed: bool) -> None:
    model = Model(FaultyFiles({WEIGHTS: DATA}), listed=listed, in_flight=1)
    stopped_half_way(model)
    assert model.load() == DATA
    probe = [] if listed else [(0, 1)]
    assert model.asked() == [*probe, (3000, 4000), (4000, 4321)]


@pytest.mark.parametrize("listed", [True, False])
def test_file_that_changed_meanwhile_starts_anew(listed: bool) -> None:
    model = Model(FaultyFiles({WEIGHTS: DATA}), listed=listed, in_flight=1)
    stopped_half_way(model)
    model.server.files[WEIGHTS] = OTHER_DATA
    assert model.load() == OTHER_DATA
    assert [begin for begin, _ in model.asked() if begin is not None][-5:] == [
        *range(0, 5000, 1000)
    ]


def test_file_that_changes_during_the_download_is_never_mixed() -> None:
    class Changing(FaultyFiles):
        def answer(self, path: str, begin: int | None, end: int) -> Answer | None:
            if path == WEIGHTS and begin == 2000:
                self.files[WEIGHTS] = OTHER_DATA
            return super().answer(path, begin, end)

    model = Model(Changing({WEIGHTS: DATA}), listed=False, in_flight=1)
    assert model.load() == OTHER_DATA


def test_version_that_no_header_tells_is_fetched_whole() -> None:
    server = FaultyFiles({WEIGHTS: DATA}, has_etag=False)
    model = Model(server, listed=False, in_flight=1)
    stopped_half_way(model)
    model.server.files[WEIGHTS] = OTHER_DATA
    assert model.load() == OTHER_DATA


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("hides", [(), ("Content-Range", "ETag"), ("Content-Length",)])
@pytest.mark.parametrize("data", [DATA, b"", b"x", DATA[:1000], DATA[:2000]])
def test_servers_of_all_kinds(ranges: bool, hides: tuple[str, ...], data: bytes) -> None:
    for listed in (True, False):
        server = FaultyFiles({WEIGHTS: data}, ranges=ranges, hides=hides)
        model = Model(server, listed=listed)
        assert model.load() == data
        assert model.load() == data


def test_compressed_answers_are_longer_than_announced() -> None:
    class Compressing(FaultyFiles):
        def answer(self, path: str, begin: int | None, end: int) -> Answer | None:
            answer = super().answer(path, begin, end)
            if answer and answer.status == 200:
                answer.headers["Content-Length"] = "77"
            return answer

    for listed in (True, False):
        assert Model(Compressing({WEIGHTS: DATA}, ranges=False), listed=listed).load() == DATA


def test_full_store_keeps_what_fitted() -> None:
    model = Model(FaultyFiles({WEIGHTS: DATA}), in_flight=1)
    model.blobs.capacity = 3_500
    with pytest.raises(StorageFullError) as failure:
        model.load()
    assert "https://models.test/model/ needs 0 MB more" in str(failure.value)
    stored = sum(model.blobs.pieces(WEIGHTS).values())
    assert stored > 0
    model.blobs.capacity = None
    model.asked()
    assert model.load() == DATA
    assert sum(end - (begin or 0) for begin, end in model.asked()) == len(DATA) - stored


def test_pieces_in_flight_are_bounded() -> None:
    files = {f"{i}.bin": DATA for i in range(8)}
    model = Model(FaultyFiles(files), in_flight=3)

    async def load() -> None:
        await model.source().download(files)

    asyncio.run(load())
    assert model.transport.most_open == 3


def test_progress_counts_all_bytes_once() -> None:
    model = Model(OnceFaulty("overlong", at=2))
    seen: list[int] = []

    async def load(source: StoredSource) -> None:
        await source.download([WEIGHTS], seen.append)

    asyncio.run(load(model.source()))
    assert seen[-1] == max(seen) == len(DATA)
    assert len(seen) > 5
    seen.clear()
    asyncio.run(load(model.source()))
    assert seen == [len(DATA)]


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (Identity(5), Identity(6), False),
        (Identity(5), Identity(5), True),
        (Identity(5, sha256="a"), Identity(5, sha256="b"), False),
        (Identity(5, sha256="a", etag="x"), Identity(5, sha256="a", etag="y"), True),
        (Identity(5, sha256="a", etag="x"), Identity(5, etag="y"), False),
        (Identity(5, md5="a"), Identity(5, sha256="a"), True),
        (Identity(5, etag="x", modified="1"), Identity(5, etag="x"), True),
    ],
)
def test_identities(mine: Identity, theirs: Identity, expected: bool) -> None:
    assert mine.may_equal(theirs) is theirs.may_equal(mine) is expected
