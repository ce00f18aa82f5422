"""Several async generators as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from py_engine.merged import merged
from tests.support.event_loop import in_clean_event_loop


class Counter:
    """Counts to `most` from `first` on, and knows how far it got and whether it has ended."""

    def __init__(self, first: int, most: int, fails: bool = False) -> None:
        self.reached = first
        self.has_ended = False
        self._most = most
        self._fails = fails

    async def run(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.reached, self._most):
                self.reached = number
                yield number
                await asyncio.sleep(0)
            if self._fails:
                raise ValueError("it failed")
        finally:
            await asyncio.sleep(0.001)
            self.has_ended = True


@in_clean_event_loop
async def test_all_items_come_each_generators_in_order() -> None:
    counters = [Counter(0, 5), Counter(10, 12), Counter(20, 20)]
    found = [item async for item in merged([counter.run() for counter in counters])]
    assert sorted(found) == [0, 1, 2, 3, 4, 10, 11]
    assert [item for item in found if item < 10] == [0, 1, 2, 3, 4]
    assert found.index(10) < found.index(4), "they ran one after the other"


@in_clean_event_loop
async def test_none_runs_far_ahead_of_the_reader() -> None:
    counters = [Counter(0, 100), Counter(1000, 1100)]
    async with aclosing(merged([counter.run() for counter in counters])) as items:
        await anext(items)
        await asyncio.sleep(0.01)
        assert counters[0].reached + counters[1].reached - 1000 <= 4
    assert all(counter.has_ended for counter in counters)


@in_clean_event_loop
async def test_an_error_ends_all() -> None:
    counters = [Counter(0, 10**9), Counter(0, 3, fails=True)]
    with pytest.raises(ValueError, match="it failed"):
        async for _ in merged([counter.run() for counter in counters]):
            pass
    assert all(counter.has_ended for counter in counters)


@in_clean_event_loop
async def test_a_cancelled_reader_ends_all() -> None:
    counters = [Counter(0, 10**9), Counter(0, 10**9)]

    async def read() -> None:
        async with aclosing(merged([counter.run() for counter in counters])) as items:
            async for _ in items:
                pass

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.005)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert all(counter.has_ended for counter in counters)
