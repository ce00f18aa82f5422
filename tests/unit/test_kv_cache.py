"""The KV cache that grows: what it holds, how often it copies, and what a full GPU does to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from py_engine.errors import LimitSupportError, OutOfMemoryError, ValidationError
from py_engine.gpu.types import SLICE_ALIGNMENT, BufferSlice, Limits
from py_engine.kernels import attention_shape
from py_engine.kernels.attention_shape import AttentionShape, SlidingWindow
from py_engine.models import cache_pool, kv_cache
from py_engine.models.cache_pool import LayerCache
from py_engine.models.kv_cache import KvCache, first_cache
from tests.support.event_loop import in_event_loop
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
    """Write random bytes into all that a sequence has, and return them."""
    written = {}
    for label, part in cache.buffers.items():
        data = rng.bytes(part.nbytes)
        bytes_of(part)[:] = np.frombuffer(data, np.uint8)
        written[label] = data
    return written


def bytes_of(part: BufferSlice) -> np.ndarray:
    whole: np.ndarray = part.buffer.view(np.uint8)  # type: ignore[attr-defined]
    return whole[part.offset : part.offset + part.nbytes]


def assert_begins_with(cache: KvCache, written: dict[str, bytes]) -> None:
    for label, data in written.items():
        assert bytes_of(cache.buffers[label])[: len(data)].tobytes() == data, label


def test_it_grows_by_doubling_and_keeps_what_it_had() -> None:
    device, rng = SmallGpu(), np.random.default_rng(1)
    cache = first_cache(device, CACHES, first_tokens=16)
    assert list(cache.buffers) == LABELS
    assert {slots(cache, label) for label in LABELS} == {16}
    for n_tokens, full, local in ((16, 16, 16), (17, 32, 24), (33, 64, 24), (600, 1000, 24)):
        written = fill(cache, rng)
        before = dict(cache.buffers)
        assert cache.has_room(n_tokens) == (full == 16)
        version = cache.pool.version
        asyncio.run(cache.ensure(n_tokens))
        assert (cache.pool.version != version) == (cache.buffers != before)
        assert cache.has_room(n_tokens)
        assert [slots(cache, label) for label in LABELS] == [full, full, local, local, full, full]
        assert_begins_with(cache, written)
    assert len(device.live_buffers) == len(LABELS)
    cache.destroy()
    assert device.live_buffers == [] and cache.is_freed


def test_a_small_cache_has_its_full_size_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_shape, "SMALL_CACHE_BYTES", FULL.cache_bytes)
    larger = AttentionShape(4, 2, 16, 1001)
    cache = first_cache(SmallGpu(), caches_of(FULL, LOCAL, larger), first_tokens=16)
    assert [slots(cache, label) for label in LABELS] == [1000, 1000, 24, 24, 16, 16]
    assert not cache.has_room(17)
    asyncio.run(cache.ensure(17))
    assert [slots(cache, label) for label in LABELS[4:]] == [32, 32]


def test_a_token_is_copied_less_than_once() -> None:
    device = SmallGpu()
    cache = first_cache(device, caches_of(AttentionShape(1, 1, 8, 1 << 16)), first_tokens=8)

    async def run() -> None:
        for n_tokens in range(1, 1 + (1 << 14)):
            await cache.ensure(n_tokens)

    asyncio.run(run())
    assert cache.pool.version == 11
    assert device.copied < 2 * 16 * (1 << 14)


def test_a_full_gpu_ends_the_growth_and_loses_nothing() -> None:
    """For every budget: what was there is still there, and room that was had is used."""
    rng, lost = np.random.default_rng(2), 0
    slot = FULL.slot_bytes
    # 3 x 2 buffers of 16 slots; then two layers of 2 x 64 and one of 2 x 24.
    for budget in range(6 * 16 * slot, 400 * slot, 13 * slot):
        device = SmallGpu(budget)
        cache = first_cache(device, CACHES, first_tokens=16)
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
    cache = first_cache(device, caches)
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
        asyncio.run(first_cache(Waiting(), caches).ensure(600))
        assert waits == expected


class Interrupted(SmallGpu):
    """A GPU whose checks let others run."""

    @asynccontextmanager
    async def check(self, what: str) -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0)


def test_nothing_stays_of_a_growth_that_a_destroy_overtakes() -> None:
    async def run() -> None:
        cache = first_cache(device, CACHES, first_tokens=16)
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
        def create_buffer(
            self, nbytes: int, label: str, *, is_uniform: bool = False
        ) -> NumpyBuffer:
            if label == "v 1":
                raise LimitSupportError("too large")
            return super().create_buffer(nbytes, label)

    device = Small()
    with pytest.raises(LimitSupportError):
        first_cache(device, CACHES)
    assert device.live_buffers == []


async def several(device: NumpyDevice, n: int, first_tokens: int = 16) -> list[KvCache]:
    """Return the caches of so many sequences of one model."""
    caches = [first_cache(device, CACHES, first_tokens)]
    while len(caches) < n:
        caches.append(await caches[0].another())
    return caches


def assert_apart(*caches: KvCache) -> None:
    """Assert that no two sequences have a byte in common, and that each part can be bound."""
    for label in LABELS:
        parts = sorted((cache.buffers[label] for cache in caches), key=lambda part: part.offset)
        ends = [0, *(part.offset + part.nbytes for part in parts)]
        assert all(end <= part.offset for end, part in zip(ends, parts, strict=False)), label
        assert ends[-1] <= parts[-1].buffer.nbytes
        assert all(part.offset % SLICE_ALIGNMENT == 0 for part in parts)


@in_event_loop
async def test_sequences_share_buffers_and_keep_what_they_have_while_one_grows() -> None:
    device, rng = SmallGpu(), np.random.default_rng(3)
    caches = await several(device, 3)
    assert sorted(device.live_buffers) == sorted(LABELS)
    for number, n_tokens in ((1, 30), (0, 100), (2, 17), (1, 1000), (0, 1000)):
        written = [fill(cache, rng) for cache in caches]
        await caches[number].ensure(n_tokens)
        assert caches[number].has_room(n_tokens)
        assert_apart(*caches)
        for cache, data in zip(caches, written, strict=True):
            assert_begins_with(cache, data)
    assert sorted(device.live_buffers) == sorted(LABELS)
    for cache in (caches[0], caches[2], caches[1]):
        assert device.live_buffers != []
        cache.destroy()
        cache.destroy()
    assert device.live_buffers == []


@in_event_loop
async def test_regions_lie_one_behind_the_other() -> None:
    """Sequences take together what each would take alone, but for alignment."""
    device = SmallGpu()
    caches = await several(device, 3, first_tokens=512)
    one = 4 * 512 * FULL.slot_bytes + 2 * 24 * LOCAL.slot_bytes
    assert device.held <= 3 * one + len(LABELS) * 2 * SLICE_ALIGNMENT
    await caches[1].ensure(1000)
    assert device.held <= 3 * one + 4 * 488 * FULL.slot_bytes + len(LABELS) * 2 * SLICE_ALIGNMENT


@in_event_loop
async def test_the_room_of_a_freed_sequence_is_used_again() -> None:
    device, rng = SmallGpu(), np.random.default_rng(4)
    caches = await several(device, 3)
    caches[1].destroy()
    held, copied, kept = device.held, device.copied, [fill(cache, rng) for cache in caches[::2]]
    caches[1] = await caches[0].another()
    assert (device.held, device.copied) == (held, copied), "there was a hole"
    caches[1].destroy()
    await caches[0].ensure(32)  # into the hole behind it
    assert (device.held, device.copied) == (held, copied)
    assert caches[0].has_room(32)
    assert_apart(*caches[::2])
    for cache, written in zip(caches[::2], kept, strict=True):
        assert_begins_with(cache, written)


@in_event_loop
async def test_what_freed_sequences_leave_is_given_back() -> None:
    device, rng = SmallGpu(), np.random.default_rng(5)
    caches = await several(device, 3)
    held, written = device.held, fill(caches[1], rng)
    for cache in caches[::2]:
        cache.destroy()
    version = caches[1].pool.version
    await caches[1].pool.compact()
    assert caches[1].pool.version > version
    assert 3 * device.held <= held
    assert_begins_with(caches[1], written)
    version = caches[1].pool.version
    await caches[1].pool.compact()
    assert caches[1].pool.version == version, "nothing is left to free"


@in_event_loop
async def test_a_full_gpu_gives_back_what_it_can_without_copies() -> None:
    device, rng = SmallGpu(), np.random.default_rng(6)
    first, second = await several(device, 2)
    written = fill(second, rng)
    first.destroy()
    device.budget = device.held
    await second.pool.compact()
    assert_begins_with(second, written)
    assert device.held == device.budget


@in_event_loop
async def test_a_full_gpu_ends_the_growth_of_one_sequence() -> None:
    """For every budget the others have what they had, and so has this one."""
    rng, lost = np.random.default_rng(7), 0
    slot = FULL.slot_bytes
    for budget in range(3 * 6 * 20 * slot, 900 * slot, 29 * slot):
        device = SmallGpu()
        caches = await several(device, 3)
        device.budget = budget
        written = [fill(cache, rng) for cache in caches]
        try:
            await caches[1].ensure(50)
        except OutOfMemoryError:
            lost += 1
        assert device.held <= budget
        assert_apart(*caches)
        for cache, data in zip(caches, written, strict=True):
            assert_begins_with(cache, data)
        device.budget = 1 << 30
        await caches[1].ensure(50)
        assert caches[1].has_room(50)
        assert_begins_with(caches[1], written[1])
    assert 3 < lost < 19


@in_event_loop
async def test_a_full_gpu_has_no_more_sequences_and_nothing_is_left_of_one() -> None:
    for budget in range(0, 8 * 16 * FULL.slot_bytes, 8 * FULL.slot_bytes):
        device, rng = SmallGpu(), np.random.default_rng(8)
        [cache] = await several(device, 1)
        written = fill(cache, rng)
        device.budget = device.held + budget
        with suppress(OutOfMemoryError):
            (await cache.another()).destroy()
        device.budget = 1 << 30
        assert_begins_with(cache, written)
        await cache.pool.compact()
        assert device.held == 2 * (2 * 16 * FULL.slot_bytes + 16 * LOCAL.slot_bytes)


@in_event_loop
async def test_sequences_get_no_more_than_a_kernel_can_bind() -> None:
    device = SmallGpu()
    device.limits = Limits(max_storage_buffer_binding_size=1100 * FULL.slot_bytes)
    first, second = await several(device, 2)
    await first.ensure(512)
    await second.ensure(512)
    with pytest.raises(OutOfMemoryError, match="making room for 1000 tokens in the KV cache"):
        await first.ensure(600)
    assert first.has_room(512) and second.has_room(512)
    second.destroy()
    await first.pool.compact()
    await first.ensure(600)


@in_event_loop
async def test_sequences_that_grow_at_once_take_turns() -> None:
    device, rng = Interrupted(), np.random.default_rng(9)
    caches = await several(device, 4)
    written = [fill(cache, rng) for cache in caches]
    await asyncio.gather(*(cache.ensure(20 << i) for i, cache in enumerate(caches)))
    assert_apart(*caches)
    for i, (cache, data) in enumerate(zip(caches, written, strict=True)):
        assert cache.has_room(20 << i)
        assert_begins_with(cache, data)


@in_event_loop
async def test_a_sequence_that_leaves_while_another_grows_takes_nothing_along() -> None:
    device, rng = Interrupted(), np.random.default_rng(10)
    caches = await several(device, 3)
    written = fill(caches[2], rng)
    growing = asyncio.ensure_future(caches[2].ensure(600))
    await asyncio.sleep(0)
    caches[0].destroy()
    await growing
    assert_begins_with(caches[2], written)
    assert_apart(*caches[1:])
    making = asyncio.ensure_future(caches[1].another())
    await asyncio.sleep(0)
    for cache in caches:
        cache.destroy()
    with pytest.raises(ValidationError, match="freed while it grew"):
        await making
    assert device.live_buffers == []


@pytest.mark.parametrize("scratch_bytes", [100 * 64, 1 << 20])
@in_event_loop
async def test_slots_are_copied_within_a_buffer(
    scratch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_pool, "_SCRATCH_BYTES", scratch_bytes)
    device, rng = SmallGpu(), np.random.default_rng(11)
    caches = await several(device, 3, first_tokens=300)
    written = [fill(cache, rng) for cache in caches]
    scratch = await caches[0].pool.scratch()
    assert scratch.nbytes <= scratch_bytes
    caches[2].copy_from(caches[1], 201, scratch)
    for label, kept in written[2].items():
        size = min(201, len(kept) // FULL.slot_bytes) * FULL.slot_bytes
        assert (
            bytes_of(caches[2].buffers[label]).tobytes() == written[1][label][:size] + kept[size:]
        )
    for cache, data in zip(caches[:2], written, strict=False):
        assert_begins_with(cache, data)
