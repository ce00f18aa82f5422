"""Continuous batching: sequences of one model take their decode steps together.

Every step reads all weights once, however many sequences it is of, so several cost little more
than one where memory is the bound (Orca, Yu et al. 2022). A sequence joins with its first step and
leaves with its last; nobody waits for one that does not ask.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from py_engine.errors import DeviceError, ValidationError
from py_engine.gpu.types import Buffer, Program
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.base import Draw
from py_engine.models.batch import STATE_STRIDE
from py_engine.models.batch_programs import BatchPrograms, Row

logger = logging.getLogger(__name__)

_TOKEN = STATE_WORDS["STATE_TOKEN"]


@dataclass(frozen=True)
class NextStep(Row):
    """The next step of one sequence.

    `alone` enqueues the step by itself; one that `may_join` can be a row of a batch.
    """

    may_join: bool
    alone: Callable[[], Awaitable[Draw]]


@dataclass
class _Waiting:
    row: NextStep
    draw: asyncio.Future[Draw]


class Batcher:
    """Enqueues the decode steps of a model's sequences, together where several ask.

    `states` has the states of all sequences. Batches are compiled when they are first wanted; steps
    go one by one until they are ready.
    """

    def __init__(self, programs: BatchPrograms, states: Buffer, most_sequences: int) -> None:
        self._programs = programs
        self._states = states
        self._most_sequences = most_sequences
        self._free_slots = list(range(most_sequences))
        self._waiting: OrderedDict[int, deque[_Waiting]] = OrderedDict()  # by slot
        self._latest: set[int] = set()  # the slots whose steps were enqueued last
        self._in_flight = 0
        self._is_flush_planned = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_preparing = False

    @property
    def has_slot(self) -> bool:
        """Whether there is a place for one more sequence."""
        return bool(self._free_slots)

    def take_slot(self) -> int:
        """Return a place for one more sequence."""
        assert self.has_slot, "more sequences than there are places for"
        return self._free_slots.pop(0)

    def leave(self, slot: int) -> None:
        """Take a sequence's place back; steps that it has waiting fail."""
        _fail(self._waiting.pop(slot, ()), _freed())
        self._free_slots.append(slot)
        self._latest.discard(slot)
        self._programs.forget()  # they have its buffers

    def step(self, row: NextStep) -> Awaitable[Draw]:
        """Enqueue a step of one sequence, or keep it until the others' that are expected."""
        if len(self._free_slots) == self._most_sequences - 1:
            return row.alone()
        waiting = _Waiting(row, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(row.slot, deque()).append(waiting)
        self._flush_complete()
        if self._waiting and not self._in_flight:
            self._plan_flush()
        # Whoever stops waiting must not take the step back: its token counts as appended.
        return asyncio.shield(waiting.draw)

    def flush(self, slot: int) -> None:
        """Enqueue what a sequence has waiting, before it does anything else."""
        for waiting in self._waiting.pop(slot, ()):
            self._alone(waiting)

    def _flush_complete(self) -> None:
        """Enqueue steps as long as all sequences of the latest ones have asked again."""
        while self._waiting and self._latest <= self._waiting.keys():
            self._enqueue()

    def _plan_flush(self) -> None:
        """Enqueue what waits soon: those who got their tokens just now are about to ask."""
        if not self._is_flush_planned:
            self._is_flush_planned = True
            asyncio.get_running_loop().call_soon(self._flush_planned)

    def _flush_planned(self) -> None:
        self._is_flush_planned = False
        if self._waiting and not self._in_flight:
            self._enqueue()
            self._flush_complete()

    def _enqueue(self) -> None:
        """Enqueue one step of each sequence that waits."""
        first = [steps.popleft() for steps in self._waiting.values()]
        for slot in [slot for slot, steps in self._waiting.items() if not steps]:
            del self._waiting[slot]
        self._latest = {waiting.row.slot for waiting in first}
        joining = sorted((w for w in first if w.row.may_join), key=lambda w: w.row.slot)
        program = self._program([w.row for w in joining])
        for waiting in first if program is None else [w for w in first if not w.row.may_join]:
            self._alone(waiting)
        if program is not None:
            self._together(program, joining)

    def _alone(self, waiting: _Waiting) -> None:
        try:
            reading = waiting.row.alone()
        except DeviceError as error:
            waiting.draw.set_exception(error)
            return
        self._read(_single(reading), [waiting])

    def _together(self, program: Program, joining: Sequence[_Waiting]) -> None:
        first, last = joining[0].row.slot, joining[-1].row.slot
        n_words = (last - first) * STATE_STRIDE + len(STATE_WORDS)
        places = [(w.row.slot - first) * STATE_STRIDE + _TOKEN for w in joining]
        offset = 4 * first * STATE_STRIDE
        try:
            reading = program.submit_and_read_bytes(self._states, offset, 4 * n_words)
        except DeviceError as error:
            _fail(joining, error)
            return
        self._read(_at(places, reading), joining)

    def _read(self, draws: Awaitable[list[Draw]], waiting: Sequence[_Waiting]) -> None:
        async def read() -> None:
            try:
                found = await draws
            except Exception as error:  # whoever asked for a step raises it
                _fail(waiting, error)
            else:
                for each, draw in zip(waiting, found, strict=True):
                    each.draw.set_result(draw)
            finally:
                self._in_flight -= 1
                if self._waiting and not self._in_flight:
                    self._plan_flush()

        self._in_flight += 1
        self._keep(read())

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _program(self, rows: list[NextStep]) -> Program | None:
        """Return the program of these rows; None for a single one, or until it can be had."""
        n_rows = len(rows)
        if n_rows < 2:
            return None
        if self._programs.has(n_rows):
            return self._programs.program(rows)
        if self._programs.may_have(n_rows) and not self._is_preparing:
            self._is_preparing = True
            self._keep(self._prepare(n_rows))
        return None

    async def _prepare(self, n_rows: int) -> None:
        try:
            await self._programs.prepare(n_rows)
        except DeviceError as error:
            logger.warning("%d sequences take their steps one by one: %s", n_rows, error)
        finally:
            self._is_preparing = False

    def destroy(self) -> None:
        """Free the batches' buffers; steps that wait fail."""
        for steps in self._waiting.values():
            _fail(steps, _freed())
        self._waiting.clear()
        self._programs.destroy()


async def _single(reading: Awaitable[Draw]) -> list[Draw]:
    return [await reading]


async def _at(places: Sequence[int], reading: Awaitable[Any]) -> list[Draw]:
    words = array("I", await reading)
    return [Draw(words[place]) for place in places]


def _freed() -> ValidationError:
    return ValidationError("The sequence was freed.")


def _fail(waiting: Iterable[_Waiting], error: Exception) -> None:
    for each in waiting:
        # One each: an error that is raised twice would collect tracebacks.
        each.draw.set_exception(copy(error))
