"""Files are compared with the record's hashes before they are used, weights too."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Callable
from typing import Literal

import pytest

from py_engine.errors import IntegrityError, ModelFileFormatError, StorageBusyError
from py_engine.storage import integrity_source
from py_engine.storage.integrity_source import IntegritySource
from py_engine.storage.source import FileInfo
from tests.support.memory_source import MemorySource

SHARD = bytes(range(200))


def sri(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


def source_of(
    files: dict[str, str | bytes],
    hashes: dict[str, str],
    on_failure: Literal["error", "warn"] = "error",
) -> tuple[IntegritySource, MemorySource]:
    inner = MemorySource(files)
    return IntegritySource(inner, hashes, on_failure), inner


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_files_with_their_hash_are_read(algorithm: str) -> None:
    hashes = {"c.json": sri(b'{"a": 1}', algorithm), "s.bin": sri(SHARD, algorithm)}
    source, _ = source_of({"c.json": '{"a": 1}', "s.bin": SHARD, "free.txt": "x"}, hashes)
    assert asyncio.run(source.read_json("c.json")) == {"a": 1}
    assert asyncio.run(source.read_text("free.txt")) == "x"
    assert asyncio.run(source.read_bytes("s.bin")) == SHARD
    assert asyncio.run(source.size("s.bin")) == 200
    assert source.url == "memory:/model/"
    assert source.entry == ""
    listing = asyncio.run(source.list_files())
    assert listing is not None
    assert listing["s.bin"] == FileInfo(200, hashlib.sha256(SHARD).hexdigest())


@pytest.mark.parametrize("piece", [7, 100, 200, 1000])
def test_a_range_is_given_once_the_whole_file_is_verified(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity_source, "PIECE_BYTES", piece)
    source, inner = source_of({"s.bin": SHARD}, {"s.bin": sri(SHARD)})
    assert asyncio.run(source.read_range("s.bin", 3, 5)) == SHARD[3:5]
    once = len(inner.requested)
    assert asyncio.run(source.read_range("s.bin", 190, 200)) == SHARD[190:]
    assert len(inner.requested) == once + 1


@pytest.mark.parametrize("piece", [7, 1000])
def test_a_changed_file_is_refused(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity_source, "PIECE_BYTES", piece)
    for changed in (SHARD[:-1] + b"\x00", SHARD[:-1], SHARD + b"\x00"):
        source, _ = source_of({"s.bin": changed}, {"s.bin": sri(SHARD)})
        with pytest.raises(IntegrityError, match=r"^memory:/model/s\.bin is not the file"):
            asyncio.run(source.read_range("s.bin", 0, 1))
        with pytest.raises(IntegrityError) as caught:
            asyncio.run(source.read_bytes("s.bin"))
        assert (caught.value.expected, caught.value.actual) == (sri(SHARD), sri(changed))


def test_a_changed_file_is_forgotten_so_that_the_next_load_fetches_it() -> None:
    forgotten: list[str] = []

    async def forget(paths: list[str]) -> None:
        forgotten.extend(paths)

    inner = MemorySource({"s.bin": SHARD, "t.bin": b"other"})
    hashes = {"s.bin": sri(SHARD), "t.bin": sri(SHARD)}
    source = IntegritySource(inner, hashes, "error", forget)
    asyncio.run(source.read_bytes("s.bin"))
    with pytest.raises(IntegrityError):
        asyncio.run(source.read_range("t.bin", 0, 1))
    assert forgotten == ["t.bin"]


def test_a_warning_lets_it_through(caplog: pytest.LogCaptureFixture) -> None:
    source, _ = source_of({"s.bin": b"other"}, {"s.bin": sri(SHARD)}, "warn")
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(source.read_range("s.bin", 0, 5)) == b"other"
    assert "memory:/model/s.bin is not the file of the model's record" in caplog.text


class DownloadingSource(MemorySource):
    """A source whose files are downloaded first."""

    async def download(self, paths: list[str], on_bytes: Callable[[int], object] | None) -> None:
        self.requested += [f"download {path}" for path in paths]
        if on_bytes is not None:
            on_bytes(7)


@pytest.mark.parametrize("data", [SHARD, SHARD[::-1]])
def test_a_large_file_is_verified_as_soon_as_it_is_downloaded(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity_source, "PIECE_BYTES", 150)
    inner = DownloadingSource({"large.gguf": data, "small.bin": data[:100]})
    hashes = {"large.gguf": sri(SHARD), "small.bin": sri(SHARD[:100])}
    source, seen = IntegritySource(inner, hashes, "error"), list[int]()

    async def load() -> None:
        assert await source.read_range("large.gguf", 0, 4) == data[:4]  # its header
        assert inner.requested == ["large.gguf"]
        await source.download(iter(["large.gguf", "small.bin"]), seen.append)

    if data == SHARD:
        asyncio.run(load())
        once = len(inner.requested)
        assert asyncio.run(source.read_range("large.gguf", 4, 8)) == data[4:8]
        assert len(inner.requested) == once + 1
    else:
        with pytest.raises(IntegrityError, match=r"large\.gguf is not the file"):
            asyncio.run(load())
        with pytest.raises(IntegrityError, match=r"small\.bin is not the file"):
            asyncio.run(source.read_range("small.bin", 0, 1))
    assert seen == [7]


def test_text_that_is_none() -> None:
    source, _ = source_of({"t.txt": b"\xff"}, {})
    with pytest.raises(ModelFileFormatError, match=r"t\.txt is not UTF-8 text: byte 0 is invalid"):
        asyncio.run(source.read_text("t.txt"))


def test_what_the_other_source_can_do_is_there_too() -> None:
    source, inner = source_of({"s.bin": SHARD}, {})
    assert source.requested is inner.requested
    assert getattr(source, "download", None) is None


def test_a_damaged_file_that_another_tab_holds_is_told_of_as_damaged() -> None:
    async def forget(paths: list[str]) -> None:
        raise StorageBusyError(f"{paths} are being downloaded")

    source = IntegritySource(MemorySource({"s.bin": b"?"}), {"s.bin": sri(SHARD)}, "error", forget)
    with pytest.raises(IntegrityError, match=r"s\.bin is not the file of the model's record"):
        asyncio.run(source.read_bytes("s.bin"))
