"""When sequences' steps are enqueued together, over programs that note what is asked of them."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from py_engine.errors import DeviceLostError, OutOfMemoryError, ValidationError
from py_engine.models.base import Draw
from py_engine.models.batch import STATE_STRIDE
from py_engine.models.batcher import Batcher, NextStep
from tests.support.event_loop import in_clean_event_loop


class Gpu:
    """Notes the slots of each step that is enqueued; `finish` lets the oldest one have run.

    Its programs take the place of BatchPrograms, with room for `most_rows`.
    """

    def __init__(self, most_rows: int = 8) -> None:
        self.steps: list[tuple[int, ...]] = []
        self.prepared: list[int] = []
        self.error: Exception | None = None
        self._most_rows = most_rows
        self._in_flight: list[asyncio.Future[None]] = []

    def has(self, n_rows: int) -> bool:
        return n_rows in self.prepared

    def may_have(self, n_rows: int) -> bool:
        return n_rows <= self._most_rows

    async def prepare(self, n_rows: int) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            self._most_rows = 0
            raise self.error
        self.prepared.append(n_rows)

    def program(self, rows: Sequence[NextStep]) -> Any:
        gpu, slots = self, tuple(row.slot for row in rows)

        class Program:
            def submit_and_read_bytes(self, _: Any, offset: int, nbytes: int) -> Awaitable[Any]:
                assert offset == 4 * slots[0] * STATE_STRIDE
                words = array("I", range(10**5, 10**5 + nbytes // 4))
                for slot in slots:  # each sequence draws its own number
                    words[(slot - slots[0]) * STATE_STRIDE + 2] = slot
                return gpu.enqueue(slots, words.tobytes())

        return Program()

    def forget(self) -> None:
        pass

    def destroy(self) -> None:
        pass

    def enqueue(self, slots: tuple[int, ...], result: Any) -> Awaitable[Any]:
        self.steps.append(slots)
        done = asyncio.get_running_loop().create_future()
        self._in_flight.append(done)

        async def read() -> Any:
            await done
            return result

        return read()

    async def finish(self, error: Exception | None = None) -> None:
        done = self._in_flight.pop(0)
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
        await settle()


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


class Model:
    """A batcher with so many sequences."""

    def __init__(self, n_sequences: int, gpu: Gpu | None = None) -> None:
        self.gpu = gpu or Gpu()
        self.batcher = Batcher(self.gpu, None, 8)  # type: ignore[arg-type]
        for _ in range(n_sequences):
            self.batcher.take_slot()

    def ask(self, slot: int, *, may_join: bool = True) -> asyncio.Future[Draw]:
        step = NextStep(
            {},
            None,  # type: ignore[arg-type]
            slot,
            ("sample",),
            1,
            may_join,
            lambda: self.gpu.enqueue((slot,), Draw(slot)),
        )
        return asyncio.ensure_future(self.batcher.step(step))

    async def meet(self, *slots: int) -> None:
        """Let sequences take a step together, so that each expects the others."""
        while self.gpu.steps[-1:] != [slots]:
            asked = [self.ask(slot) for slot in slots]
            await settle()
            while not all(each.done() for each in asked):
                await self.gpu.finish()
        self.gpu.steps.clear()


@in_clean_event_loop
async def test_a_single_sequence_goes_by_itself() -> None:
    model = Model(1)
    asked = [model.ask(0), model.ask(0)]
    assert model.gpu.steps == [(0,), (0,)]
    await model.gpu.finish()
    await model.gpu.finish()
    assert [each.result() for each in asked] == [Draw(0)] * 2


@in_clean_event_loop
async def test_those_that_met_go_together_and_get_their_own_tokens() -> None:
    model = Model(4)
    await model.meet(0, 2, 3)
    asked = [model.ask(slot) for slot in (3, 0, 2)]
    await settle()
    assert model.gpu.steps == [(0, 2, 3)]
    await model.gpu.finish()
    assert [each.result().token_id for each in asked] == [3, 0, 2]


@in_clean_event_loop
async def test_steps_go_one_by_one_until_batches_are_ready() -> None:
    model = Model(2)
    running = model.ask(0)
    later = [model.ask(1), model.ask(0)]
    await settle()
    assert sorted(model.gpu.steps) == [(0,), (0,), (1,)]
    assert model.gpu.prepared == [2]
    for _ in range(3):
        await model.gpu.finish()
    assert all(each.done() for each in (running, *later))


@in_clean_event_loop
async def test_nobody_waits_for_one_that_does_not_ask() -> None:
    model = Model(2)
    await model.meet(0, 1)
    ahead = [model.ask(0), model.ask(1), model.ask(0)]
    await settle()
    assert model.gpu.steps == [(0, 1)], "the next one is for both"
    await model.gpu.finish()
    assert model.gpu.steps == [(0, 1), (0,)], "the GPU had nothing else to do"
    model.ask(0)
    assert model.gpu.steps[-1] == (0,) and len(model.gpu.steps) == 3, "it is not expected any more"
    late = model.ask(1)
    await settle()
    assert len(model.gpu.steps) == 3
    model.ask(0)
    await settle()
    assert model.gpu.steps[-1] == (0, 1), "and is back with the next step"
    for _ in range(3):
        await model.gpu.finish()
    assert late.result() == Draw(1) and ahead[2].done()


@in_clean_event_loop
async def test_what_cannot_join_goes_beside_the_others() -> None:
    model = Model(3)
    await model.meet(0, 1, 2)
    model.gpu.prepared.append(2)
    asked = [model.ask(0), model.ask(1, may_join=False), model.ask(2)]
    await settle()
    assert sorted(model.gpu.steps) == [(0, 2), (1,)]
    await model.gpu.finish()
    await model.gpu.finish()
    assert [each.result().token_id for each in asked] == [0, 1, 2]


@in_clean_event_loop
async def test_a_step_that_nobody_waits_for_is_taken_all_the_same() -> None:
    """Its token counts as appended, and comes before the sequence begins anew."""
    model = Model(2)
    await model.meet(0, 1)
    running = [model.ask(0), model.ask(1)]
    given_up = model.ask(1)
    await settle()
    given_up.cancel()
    await settle()
    assert model.gpu.steps == [(0, 1)]
    model.batcher.flush(1)
    assert model.gpu.steps == [(0, 1), (1,)]
    model.batcher.flush(1)
    assert len(model.gpu.steps) == 2
    await model.gpu.finish()
    await model.gpu.finish()
    assert all(each.done() for each in running)


@in_clean_event_loop
async def test_a_sequence_that_is_freed_takes_its_waiting_steps_along() -> None:
    model = Model(3)
    await model.meet(0, 1)
    running = [model.ask(0), model.ask(1)]
    waiting = model.ask(1)
    await settle()
    model.batcher.leave(1)
    await settle()
    assert isinstance(waiting.exception(), ValidationError)
    await model.gpu.finish()
    model.ask(0)
    await settle()
    assert model.gpu.steps == [(0, 1), (0,)], "nobody is waited for"
    assert all(each.done() for each in running)
    assert model.batcher.take_slot() in (1, 3)


@in_clean_event_loop
async def test_a_failure_reaches_every_row() -> None:
    model = Model(2)
    await model.meet(0, 1)
    asked = [model.ask(0), model.ask(1), model.ask(0)]
    await settle()
    await model.gpu.finish(DeviceLostError("the device was lost"))
    errors = [each.exception() for each in asked[:2]]
    assert [type(error) for error in errors] == [DeviceLostError] * 2
    assert errors[0] is not errors[1]
    assert model.gpu.steps[-1] == (0,), "what waited is tried"
    await model.gpu.finish()
    assert asked[2].result() == Draw(0)


@in_clean_event_loop
async def test_without_memory_for_batches_steps_go_one_by_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpu = Gpu()
    gpu.error = OutOfMemoryError("no room for several tokens")
    model = Model(2, gpu)
    for _ in range(3):
        asked = [model.ask(0), model.ask(1)]
        await settle()
        await gpu.finish()
        await gpu.finish()
        assert [each.result().token_id for each in asked] == [0, 1]
    assert all(len(step) == 1 for step in gpu.steps)
    assert caplog.text.count("one by one: no room") == 1
