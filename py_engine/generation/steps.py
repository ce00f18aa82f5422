"""How the tokens of a prefilled sequence are drawn: freely ahead of the CPU, or under its control.

Either way the GPU works on the next forward pass while the CPU handles a token. `appended` tells
which of them the sequence has in the end, because the GPU may be past the last one that was taken.
`has_logits` says that the logits of the first draw are at hand already.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable
from typing import Protocol

from py_engine.generation.control import DrawControl
from py_engine.generation.prompt_lookup import PromptLookup
from py_engine.generation.statistics import Statistics
from py_engine.models.base import Draw, TextModel

logger = logging.getLogger(__name__)


class Steps(Protocol):
    """Draws one token after another, at most as many as it was made for."""

    @property
    def appended(self) -> list[int]: ...

    async def next(self) -> Draw:
        """Return the next draw."""
        ...

    async def drain(self) -> None:
        """Wait for what is in flight; `appended` is right afterwards."""
        ...


class RunAhead:
    """Keeps the model's `steps_in_flight` in flight at once; draws up to `limit` tokens.

    The GPU feeds each drawn token to the next step itself, so a step does not wait for the one
    before to be read. What was drawn past a stop is drained and forgotten.
    """

    def __init__(self, model: TextModel, limit: int, *, has_logits: bool = False) -> None:
        self._model = model
        self._steps_left = limit - 1
        self._tokens = _AppendedTokens()
        first = model.draw() if has_logits else model.sample()
        self._in_flight: deque[Awaitable[Draw]] = deque((first,))

    @property
    def appended(self) -> list[int]:
        """The tokens that the sequence has taken in, for certain."""
        return self._tokens.certain

    async def next(self) -> Draw:
        """Return the next draw."""
        in_flight, model = self._in_flight, self._model
        while self._steps_left and len(in_flight) < model.steps_in_flight:
            if in_flight and not model.has_all_kernels:
                break  # the first draw does not wait for what only the others need
            await model.reserve(1)
            in_flight.append(model.decode())
            self._tokens.n_appended += 1
            self._steps_left -= 1
        return await self._tokens.read(in_flight.popleft())

    async def drain(self) -> None:
        """Wait for the steps in flight and forget their errors.

        A cancellation while waiting is passed on when all have ended.
        """
        cancelled: BaseException | None = None
        while self._in_flight:
            try:
                await self._tokens.read(self._in_flight.popleft())
            except Exception as error:  # the request ended or failed already
                logger.debug("a step past the end of the reply failed: %s", error)
            except BaseException as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


class DraftedSteps:
    """Lets the model verify drafts of up to `most` tokens; draws up to `limit` tokens.

    Where nothing is known to come next, it is a step for a token.
    """

    def __init__(
        self,
        model: TextModel,
        limit: int,
        lookup: PromptLookup,
        most: int,
        statistics: Statistics,
        *,
        has_logits: bool = False,
    ) -> None:
        self._model = model
        self._steps_left = limit - 1
        self._lookup = lookup
        self._most = most
        self._statistics = statistics
        self._first: Awaitable[Draw] | None = model.draw() if has_logits else model.sample()
        self._drawn: list[int] = []
        self._unread: deque[int] = deque()

    @property
    def appended(self) -> list[int]:
        """The tokens that the sequence has taken in, for certain."""
        return self._drawn[:-1]

    async def next(self) -> Draw:
        """Return the next draw."""
        if not self._unread:
            draws = await self._draws()
            self._drawn += draws
            self._unread.extend(draws)
            for token_id in draws:
                self._lookup.put(token_id)
        return Draw(self._unread.popleft())

    async def _draws(self) -> list[int]:
        if self._first is not None:
            first, self._first = self._first, None
            return [(await first).token_id]
        draft = self._lookup.draft(min(self._most, self._steps_left - 1))
        if not draft:
            await self._model.reserve(1)
            draws = [(await self._model.decode()).token_id]
        else:
            draws = await self._model.verify(self._drawn[-1], draft)
            self._statistics.accepted_draft_tokens += len(draws) - 1
            self._statistics.rejected_draft_tokens += len(draft) - len(draws) + 1
        self._steps_left -= len(draws)
        return draws

    async def drain(self) -> None:
        """Return; nothing is in flight between two calls of `next`."""


class ControlledSteps:
    """Draws up to `limit` tokens from logits that `control` masks and changes.

    The forward pass after a draw is enqueued before the draw is read, so it overlaps with the
    read-back, the handling of the token, and the grammar's work on the next mask.
    """

    def __init__(
        self, model: TextModel, limit: int, control: DrawControl, *, has_logits: bool = False
    ) -> None:
        self._model = model
        self._control = control
        self._steps_left = limit - 1
        self._tokens = _AppendedTokens()
        if not has_logits:
            model.first_logits()

    @property
    def appended(self) -> list[int]:
        """The tokens that the sequence has taken in, for certain."""
        return self._tokens.certain

    async def next(self) -> Draw:
        """Return the next draw. Raises LogitProcessorError, GrammarMatcherError."""
        mask = await self._control.prepare(self._model)
        if self._steps_left:
            await self._model.reserve(1)
        began = time.perf_counter()
        reading = self._model.draw(mask)
        if self._steps_left:
            self._model.next_logits()
            self._tokens.n_appended += 1
            self._steps_left -= 1
        draw = await self._tokens.read(reading)
        self._control.drew(draw.token_id, time.perf_counter() - began)
        return draw

    async def drain(self) -> None:
        """Return; no draw is in flight between two calls of `next`."""


class _AppendedTokens:
    """Knows the drawn tokens that were fed to a next step: all read before a read failed."""

    def __init__(self) -> None:
        self.n_appended = 0
        self._drawn: list[int] = []
        self._failed = False

    @property
    def certain(self) -> list[int]:
        return self._drawn[: self.n_appended]

    async def read(self, reading: Awaitable[Draw]) -> Draw:
        try:
            draw = await reading
        except BaseException:
            self._failed = True
            raise
        if not self._failed:
            self._drawn.append(draw.token_id)
        return draw
