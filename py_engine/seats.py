"""Who may use which sequence of a model: requests get seats in the order in which they came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from py_engine.errors import MLCError, OutOfMemoryError
from py_engine.generation import Seat
from py_engine.models.base import TextModel
from py_engine.turns import Turns

logger = logging.getLogger(__name__)


class Seats:
    """The seats of a model: its own, and up to `most` with those that are opened when needed."""

    def __init__(self, model: TextModel, most: int) -> None:
        self._first = Seat(model)
        model.free_memory = self._free_idle
        self._most = most
        self._door = Turns()  # taken by the one that is next
        self._freed = asyncio.Event()
        self._used: set[Seat] = set()
        self._is_reserved = False  # the one that uses a seat is to be alone

    @property
    def most(self) -> int:
        """How many requests there can be at once."""
        return self._most

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._door.is_closed

    @asynccontextmanager
    async def take(
        self, prompt: Sequence[int] = (), *, is_alone: bool = False
    ) -> AsyncIterator[Seat]:
        """Wait for a seat: best one whose sequence has the beginning of `prompt`.

        With `is_alone` it is the model's own, and no other one is used meanwhile.
        Raises what `close` was given when that comes first, and DeviceLostError.
        """
        async with self._door.take():
            while (seat := await self._find(prompt, is_alone)) is None:
                self._freed.clear()
                await self._freed.wait()
            self._used.add(seat)
            self._is_reserved = is_alone
        try:
            yield seat
        finally:
            self._used.remove(seat)
            self._is_reserved = False
            # The one that was used last comes last of those that have nothing of a prompt.
            self._first.seats.remove(seat)
            self._first.seats.append(seat)
            self._freed.set()

    async def _find(self, prompt: Sequence[int], is_alone: bool) -> Seat | None:
        self.raise_if_closed()
        if is_alone:
            return None if self._used else self._first
        if self._is_reserved:
            return None
        free = [seat for seat in self._first.seats if seat not in self._used]
        if free:
            return max(free, key=lambda seat: seat.cached.common_prefix(prompt))
        return await self._open() if len(self._used) < self._most else None

    async def _open(self) -> Seat | None:
        """Make one more sequence; from the first that cannot be had on, there are no more."""
        try:
            model = await self._first.model.fork()
        except OutOfMemoryError as error:
            logger.info("requests wait for each other: %s", error)
            model = None
        if model is None:
            self._most = len(self._first.seats)
            return None
        if self.is_closed:
            model.destroy()
            self.raise_if_closed()
        model.free_memory = self._free_idle
        return Seat(model, first=self._first)

    def _free_idle(self) -> bool:
        """Free the sequences that nobody uses, but for the model's own; tell whether there were."""
        idle = [s for s in self._first.seats if s not in self._used and s is not self._first]
        for seat in idle:
            self._first.seats.remove(seat)
            seat.model.destroy()
        return bool(idle)

    def forget(self) -> None:
        """Forget the sequences of all seats that are not used."""
        for seat in self._first.seats:
            if seat not in self._used:
                seat.cached.keep(0)

    def close(self, reason: MLCError) -> None:
        """Free the model with all its sequences; who waits, and everyone later, gets `reason`."""
        if self.is_closed:
            return
        self._door.close(reason)
        for seat in self._first.seats:
            if seat is not self._first:
                seat.model.destroy()
        self._first.model.destroy()
        self._freed.set()

    def raise_if_closed(self) -> None:
        """Raise the reason, where there is one."""
        self._door.raise_if_closed()
