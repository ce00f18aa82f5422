"""Loads that are killed at random moments, from a server that goes wrong, and started again."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from py_engine.storage.fetcher import RetryPolicy
from py_engine.storage.store import folder_of
from py_engine.storage.transport import Request
from tests.support.faulty_files import FaultyFiles
from tests.support.memory_storage import (
    URL,
    Fuse,
    KilledError,
    MemoryBlobs,
    MemoryResponse,
    MemoryTransport,
    memory_source,
    sha256,
)

PIECE_BYTES = 1000
MOMENTS = 50
# A clean load of these files has about 200 moments, one with faults up to twice that.
LAST_MOMENT = 300
PATIENT = RetryPolicy(attempts=25, first_attempts=25)


def model_files(seed: int) -> dict[str, bytes]:
    rng = random.Random(seed)
    sizes = {"a.bin": 14_321, "b.bin": 5_000, "c.bin": 999, "empty.bin": 0}
    weights = {path: rng.randbytes(size) for path, size in sizes.items()}
    return {"config.json": b'{"model_type": "llama"}', **weights}


def with_manifest(files: dict[str, bytes], pieces: bool) -> dict[str, bytes]:
    entries = {}
    for path, data in files.items():
        entries[path] = {"size": len(data), "sha256": sha256(data)}
        if pieces:
            parts = range(0, max(1, len(data)), PIECE_BYTES)
            entries[path]["piece_bytes"] = PIECE_BYTES
            entries[path]["pieces"] = [sha256(data[at : at + PIECE_BYTES]) for at in parts]
    manifest = json.dumps({"version": 1, "files": entries}).encode()
    return {**files, "model-manifest.json": manifest}


class WatchedTransport(MemoryTransport):
    """Notes in `twice` every request for bytes that are already stored."""

    def __init__(self, server: FaultyFiles, fuse: Fuse, blobs: MemoryBlobs) -> None:
        super().__init__(server, fuse)
        self.blobs = blobs
        self.twice: list[str] = []

    async def get(
        self, request: Request, begin: int | None, end: int, stall_s: float
    ) -> MemoryResponse:
        path = request.url.removeprefix(URL)
        if path != "model-manifest.json":  # has no hash, so that the server is asked each time
            self._watch(path, begin or 0, end)
        return await super().get(request, begin, end, stall_s)

    def _watch(self, path: str, begin: int, end: int) -> None:
        for index, size in self.blobs.pieces(path).items():
            if begin < index * PIECE_BYTES + size and index * PIECE_BYTES < end:
                self.twice.append(f"{path}: {begin} to {end}, piece {index}")
        if any(name.endswith(".done") for name in self.blobs.data.get(folder_of(URL, path), {})):
            self.twice.append(f"{path} was verified")


class Tabs:
    """One tab after the other that loads the model into the same store."""

    def __init__(self, server: FaultyFiles, listed: bool) -> None:
        self.server = server
        self.listed = listed
        self.blobs = MemoryBlobs()
        self.twice: list[str] = []

    def load(self, fuse: Fuse) -> bool:
        """Load the model; return False if the fuse ended that."""
        self.blobs.fuse = fuse
        transport = WatchedTransport(self.server, fuse, self.blobs)
        try:
            asyncio.run(self._load(transport))
        except KilledError:
            return False
        finally:
            self.twice += transport.twice
        assert transport.open == 0
        return True

    async def _load(self, transport: WatchedTransport) -> None:
        source = memory_source(
            self.blobs, transport, listed=self.listed, piece_bytes=PIECE_BYTES, policy=PATIENT
        )
        config = await source.read_json("config.json")
        assert config == {"model_type": "llama"}
        weights = [path for path in self.server.files if path.endswith(".bin")]
        await source.download(weights)
        for path in weights:
            assert await source.read_bytes(path) == self.server.files[path]


@pytest.mark.parametrize("hashes", ["listing", "manifest", "pieces"])
def test_killed_loads_go_on(hashes: str) -> None:
    n_killed = 0
    for moment in range(MOMENTS):
        files = model_files(moment)
        if hashes != "listing":
            files = with_manifest(files, pieces=hashes == "pieces")
        server = FaultyFiles(files, seed=moment, rate=0.2, undamaged=("model-manifest.json",))
        tabs = Tabs(server, listed=hashes == "listing")
        chance = random.Random(moment)
        while not tabs.load(Fuse(chance.randrange(LAST_MOMENT))):
            n_killed += 1
        before = len(server.asked)
        assert tabs.load(Fuse())
        again = [path for path, *_ in server.asked[before:] if path != "model-manifest.json"]
        assert (tabs.twice, again) == ([], [])
    assert n_killed >= MOMENTS
