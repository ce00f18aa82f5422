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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from py_engine.errors import DeviceError, ValidationError
from py_engine.gpu.types import Buffer, BufferSlice, Device, Dispatch, Kernel, KernelSpec, Program
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.base import Draw
from py_engine.models.batch import (
    PER_ROW,
    STATE_STRIDE,
    STATES,
    batch_rows,
    batch_sizes,
    batched,
    row_name,
    row_steps,
)
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.kv_cache import destroy_buffers
from py_engine.models.ops import Step
from py_engine.models.sampler import draw_steps
from py_engine.models.spec import DecoderSpec

logger = logging.getLogger(__name__)

MOST_PROGRAMS = 8
"""Recorded programs that are kept, each of other sequences or other ways to draw."""

_TOKEN = STATE_WORDS["STATE_TOKEN"]


@dataclass(frozen=True)
class Row:
    """The next step of one sequence.

    `slot` is the place of its state in the buffer of all states, `buffers` are its own, the same
    object as long as they are the same buffers, and `roles` are the kernels of its draw. `alone`
    enqueues the step by itself; one that `may_join` can be a row of a batch.
    """

    slot: int
    buffers: Mapping[str, Buffer | BufferSlice]
    roles: tuple[str, ...]
    may_join: bool
    alone: Callable[[], Awaitable[Draw]]


@dataclass
class _Waiting:
    row: Row
    draw: asyncio.Future[Draw]


class Batcher:
    """Enqueues the decode steps of a model's sequences, together where several ask.

    `shared` are the buffers of all sequences, `kernels` the model's: those of batches come to them.
    Batches are compiled when they are first wanted; steps go one by one until they are ready.
    """

    def __init__(
        self,
        device: Device,
        spec: DecoderSpec,
        steps: DecoderSteps,
        kernels: dict[KernelSpec, Kernel],
        shared: Mapping[str, Buffer],
        most_sequences: int,
    ) -> None:
        self._device = device
        self._spec = spec
        self._steps = steps
        self._kernels = kernels
        self._shared = shared
        self._most_sequences = most_sequences
        self._free_slots = list(range(most_sequences))
        self._waiting: OrderedDict[int, deque[_Waiting]] = OrderedDict()  # by slot
        self._latest: set[int] = set()  # the slots whose steps were enqueued last
        self._in_flight = 0
        self._is_flush_planned = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: dict[int, tuple[Step, ...]] = {}  # forward steps by the rows of a batch
        self._preparing = False
        self._failed = False
        self._buffers: dict[str, Buffer] = {}
        self._programs: OrderedDict[tuple[object, ...], tuple[list[Row], Program]] = OrderedDict()

    @property
    def has_slot(self) -> bool:
        """Whether there is a place for one more sequence."""
        return bool(self._free_slots)

    def take_slot(self) -> int:
        """Return a place for one more sequence."""
        assert self.has_slot, "more sequences than there are places for"
        return self._free_slots.pop(0)

    def leave(self, slot: int) -> None:
        """Take a sequence's place back; it has no steps in flight."""
        self._free_slots.append(slot)
        self._latest.discard(slot)
        self._programs.clear()  # they have its buffers

    def step(self, row: Row) -> Awaitable[Draw]:
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
        program = self._program([w.row for w in joining]) if len(joining) > 1 else None
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
        states, offset = self._shared["state"], 4 * first * STATE_STRIDE
        try:
            reading = program.submit_and_read_bytes(states, offset, 4 * n_words)
        except DeviceError as error:
            _fail(joining, error)
            return
        self._read(_at(places, reading), joining)

    def _read(self, draws: Awaitable[list[Draw]], waiting: Sequence[_Waiting]) -> None:
        async def read() -> None:
            try:
                found = await draws
            except DeviceError as error:
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

    def _program(self, rows: list[Row]) -> Program | None:
        """Return the program of these rows; None until it can be had, which is seen to."""
        batch = 1 << (len(rows) - 1).bit_length()
        if batch not in self._ready:
            if not self._preparing and not self._failed:
                self._preparing = True
                self._keep(self._prepare(batch))
            return None
        key = tuple((id(row.buffers), row.roles) for row in rows)
        known = self._programs.get(key)
        if known is None:
            known = self._programs[key] = rows, self._record(rows, batch)
        self._programs.move_to_end(key)
        while len(self._programs) > MOST_PROGRAMS:
            self._programs.popitem(last=False)
        return known[1]

    async def _prepare(self, batch: int) -> None:
        """Make what batches of so many rows need; without it steps go one by one."""
        steps = self._steps.batch_logits(batch)
        new = list(dict.fromkeys(s.kernel for s in steps if s.kernel not in self._kernels))
        try:
            self._kernels.update(zip(new, await self._device.compile(new), strict=True))
            if batch > max(self._ready, default=0):
                await self._allocate(batch)
            self._ready[batch] = steps
        except DeviceError as error:
            self._failed = True
            logger.warning("sequences decode one by one: %s", error)
        finally:
            self._preparing = False

    async def _allocate(self, batch: int) -> None:
        made: dict[str, Buffer] = {}
        try:
            async with self._device.check("making room for batches"):
                for name, nbytes in batch_sizes(self._spec, batch).items():
                    if name != STATES:  # each sequence has its own
                        made[name] = self._device.create_buffer(nbytes, name)
        except BaseException:
            destroy_buffers(made)
            raise
        destroy_buffers(self._buffers)
        self._programs.clear()
        self._buffers = made

    def _record(self, rows: list[Row], batch: int) -> Program:
        spec, tuning = self._spec, self._steps.tuning
        per_row = PER_ROW | rows[0].buffers.keys()
        buffers: dict[str, Buffer | BufferSlice] = {**self._shared, **self._buffers}
        for number, row in enumerate(rows):
            buffers |= {row_name(name, number): own for name, own in row.buffers.items()}
        # The logits among them are the batch's, whose head writes all of them at once.
        buffers |= batch_rows(spec, batch, self._buffers)
        draws = chain.from_iterable(
            row_steps(draw_steps(spec.active_vocab_size, tuning, row.roles), number, per_row)
            for number, row in enumerate(rows)
        )
        steps = (*batched(self._ready[batch], len(rows), per_row), *draws)
        return self._device.program(
            [
                Dispatch(self._kernels[s.kernel], tuple(buffers[n] for n in s.buffers))
                for s in steps
            ],
            "batch step",
        )

    def destroy(self) -> None:
        """Free the batches' buffers; steps that wait fail."""
        for steps in self._waiting.values():
            _fail(list(steps), ValidationError("The model was freed."))
        self._waiting.clear()
        self._programs.clear()
        self._ready.clear()
        self._failed = True
        destroy_buffers(self._buffers)
        self._buffers = {}


async def _single(reading: Awaitable[Draw]) -> list[Draw]:
    return [await reading]


async def _at(places: Sequence[int], reading: Awaitable[Any]) -> list[Draw]:
    words = array("I", await reading)
    return [Draw(words[place]) for place in places]


def _fail(waiting: Sequence[_Waiting], error: DeviceError) -> None:
    for each in waiting:
        # One each: an error that is raised twice would collect tracebacks.
        each.draw.set_exception(type(error)(str(error)))
