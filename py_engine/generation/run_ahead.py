"""Keeps the GPU a few decode steps ahead of the CPU."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable

from py_engine.models.base import TextModel

logger = logging.getLogger(__name__)


class RunAhead:
    """Draws up to `limit` tokens from a prefilled model, `depth` steps being in flight at once.

    The GPU feeds each drawn token to the next step itself, so a step does not wait for the one
    before to be read. What was drawn past a stop is drained and forgotten.
    """

    def __init__(self, model: TextModel, limit: int, depth: int) -> None:
        self._model = model
        self._depth = depth
        self._steps_left = limit - 1
        self._in_flight: deque[Awaitable[int]] = deque((model.sample(),))

    async def next(self) -> int:
        """Return the next token id; call it at most `limit` times."""
        in_flight = self._in_flight
        while self._steps_left and len(in_flight) < self._depth:
            in_flight.append(self._model.decode())
            self._steps_left -= 1
        return await in_flight.popleft()

    async def drain(self) -> None:
        """Wait for the steps in flight and forget their tokens, and their errors.

        A cancellation while waiting is passed on when all have ended.
        """
        cancelled: BaseException | None = None
        while self._in_flight:
            try:
                await self._in_flight.popleft()
            except Exception as error:  # the request ended or failed already
                logger.debug("a step past the end of the reply failed: %s", error)
            except BaseException as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
