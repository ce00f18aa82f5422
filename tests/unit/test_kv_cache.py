"""The KV cache that grows: what it holds, how often it copies, and what a full GPU does to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from py_engine.errors import LimitSupportError, OutOfMemoryError, ValidationError
from py_engine.kernels import attention_shape
from py_engine.kernels.attention_shape import AttentionShape, SlidingWindow
from py_engine.models import kv_cache
from py_engine.models.kv_cache import KvCache, LayerCache
from tests.support.numpy_device import NumpyBuffer, NumpyDevice
from tests.support.small_gpu import SmallGpu

FULL = AttentionShape(4, 2, 16, 1000)
LOCAL = AttentionShape(4, 2, 16, 1000, SlidingWindow.for_chunks(20, 0, 5))


@pytest.fixture(autouse=True)
def all_caches_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small caches grow too."""
    monkeypatch.setattr(attention_shape, "SMALL_CACHE_BYTES", 0)


def caches_of(*shapes: AttentionShape) -> list[LayerCache]:
    return [LayerCache(f"k {i}", f"v {i}", shape) for i, shape in enumerate(shapes)]


CACHES = caches_of(FULL, LOCAL, FULL)
LABELS = ["k 0", "v 0", "k 1", "v 1", "k 2", "v 2"]


def slots(cache: KvCache, label: str) -> int:
    return cache.buffers[label].nbytes // FULL.slot_bytes


def fill(cache: KvCache, rng: np.random.Generator) -> dict[str, bytes]:
    """Write random bytes into every buffer and return them."""
    written = {}
    for label, buffer in cache.buffers.items():
        data = rng.bytes(buffer.nbytes)
        buffer.view(np.uint8)[:] = np.frombuffer(data, np.uint8)  # type: ignore[attr-defined]
        written[label] = data
    return written


def assert_begins_with(cache: KvCache, written: dict[str, bytes]) -> None:
    for label, data in written.items():
        held = cache.buffers[label].view(np.uint8)[: len(data)]  # type: ignore[attr-defined]
        assert held.tobytes() == data, label


def test_it_grows_by_doubling_and_keeps_what_it_had() -> None:
    device, rng = SmallGpu(), np.random.default_rng(1)
    cache = KvCache(device, CACHES, first_tokens=16)
    assert list(cache.buffers) == LABELS
    assert {slots(cache, label) for label in LABELS} == {16}
    for n_tokens, full, local in ((16, 16, 16), (17, 32, 24), (33, 64, 24), (600, 1000, 24)):
        written = fill(cache, rng)
        before = dict(cache.buffers)
        assert cache.has_room(n_tokens) == (full == 16)
        assert asyncio.run(cache.ensure(n_tokens)) == (cache.buffers != before)
        assert cache.has_room(n_tokens)
        assert [slots(cache, label) for label in LABELS] == [full, full, local, local, full, full]
        assert_begins_with(cache, written)
    assert len(device.live_buffers) == len(LABELS)
    cache.destroy()
    assert device.live_buffers == [] and cache.buffers == {}


def test_a_small_cache_has_its_full_size_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_shape, "SMALL_CACHE_BYTES", FULL.cache_bytes)
    larger = AttentionShape(4, 2, 16, 1001)
    cache = KvCache(SmallGpu(), caches_of(FULL, LOCAL, larger), first_tokens=16)
    assert [slots(cache, label) for label in LABELS] == [1000, 1000, 24, 24, 16, 16]
    assert not cache.has_room(17)
    asyncio.run(cache.ensure(17))
    assert [slots(cache, label) for label in LABELS[4:]] == [32, 32]


def test_a_token_is_copied_less_than_once() -> None:
    device = SmallGpu()
    cache = KvCache(device, caches_of(AttentionShape(1, 1, 8, 1 << 16)), first_tokens=8)

    async def run() -> int:
        return sum([await cache.ensure(n_tokens) for n_tokens in range(1, 1 + (1 << 14))])

    assert asyncio.run(run()) == 11
    assert device.copied < 2 * 16 * (1 << 14)


def test_a_full_gpu_ends_the_growth_and_loses_nothing() -> None:
    """For every budget: what was there is still there, and room that was had is used."""
    rng, lost = np.random.default_rng(2), 0
    slot = FULL.slot_bytes
    # 3 x 2 buffers of 16 slots; then two layers of 2 x 64 and one of 2 x 24.
    for budget in range(6 * 16 * slot, 400 * slot, 13 * slot):
        device = SmallGpu(budget)
        cache = KvCache(device, CACHES, first_tokens=16)
        written = fill(cache, rng)
        try:
            asyncio.run(cache.ensure(50))
        except OutOfMemoryError as error:
            assert "making room for" in str(error)
            assert not cache.has_room(50)
            lost += 1
        else:
            assert cache.has_room(50)
        assert device.held <= budget
        assert cache.has_room(16)
        assert_begins_with(cache, written)
        assert sorted(device.live_buffers) == sorted(LABELS)
        device.budget = 1 << 30
        asyncio.run(cache.ensure(50))
        assert cache.has_room(50)
        assert_begins_with(cache, written)
    assert 5 < lost < 23


def test_a_layer_that_is_being_replaced_is_all_that_is_held_twice() -> None:
    caches = caches_of(*[FULL] * 8)
    small, large = 2 * 512 * FULL.slot_bytes, 2 * 1000 * FULL.slot_bytes
    device = SmallGpu(7 * large + large + small)
    cache = KvCache(device, caches)
    asyncio.run(cache.ensure(600))
    assert device.held == 8 * large


def test_it_waits_for_the_gpu_to_free_large_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    class Waiting(NumpyDevice):
        async def synchronize(self) -> None:
            waits.append(len(self.live_buffers))

    caches = caches_of(*[FULL] * 4)
    for most, expected in ((1 << 20, []), (3 * 512 * FULL.slot_bytes, [8, 8])):
        monkeypatch.setattr(kv_cache, "_UNSYNCHRONIZED_BYTES", most)
        waits.clear()
        asyncio.run(KvCache(Waiting(), caches).ensure(600))
        assert waits == expected


def test_nothing_stays_of_a_growth_that_a_destroy_overtakes() -> None:
    class Interrupted(SmallGpu):
        @asynccontextmanager
        async def check(self, what: str) -> AsyncIterator[None]:
            yield
            await asyncio.sleep(0)

    async def run() -> None:
        cache = KvCache(device, CACHES, first_tokens=16)
        growth = asyncio.ensure_future(cache.ensure(600))
        await asyncio.sleep(0)
        cache.destroy()
        with pytest.raises(ValidationError, match="freed while it grew"):
            await growth

    device = Interrupted()
    asyncio.run(run())
    assert device.live_buffers == []


def test_nothing_stays_of_caches_that_cannot_be_made() -> None:
    class Small(NumpyDevice):
        def create_buffer(self, nbytes: int, label: str) -> NumpyBuffer:
            if label == "v 1":
                raise LimitSupportError("too large")
            return super().create_buffer(nbytes, label)

    device = Small()
    with pytest.raises(LimitSupportError):
        KvCache(device, CACHES)
    assert device.live_buffers == []
