"""How many decode steps are kept in flight."""

from __future__ import annotations

FEWEST_STEPS = 2
MOST_STEPS = 16

WINDOW = 16
"""Tokens whose waits are compared with those of as many others."""

_PAYS = 0.7
_NEGLIGIBLE_S = 0.0002
_LONGEST_REST = 64


class RunAheadDepth:
    """Finds how many steps in flight it takes until waiting for a token gets no shorter.

    Two keep the GPU busy where a read-back is quicker than a step, as in Chrome. Firefox answers
    read-backs on a timer of 100 ms, which only more steps in flight can hide. Each of them may be
    computed for nothing when a reply ends, so `steps` doubles only while that pays; a try that did
    not is repeated after longer and longer rests.
    """

    def __init__(self, steps: int = FEWEST_STEPS) -> None:
        self.steps = steps
        self._waits = 0.0
        self._n_waits = 0
        self._is_settling = False
        self._mean_before: float | None = None  # of the depth that is doubled on trial
        self._rest = 0
        self._next_rest = 1

    def waited(self, seconds: float) -> None:
        """Take note of how long the CPU waited for a token, the first of a reply excepted."""
        self._waits += seconds
        self._n_waits += 1
        if self._n_waits < WINDOW:
            return
        mean, self._waits, self._n_waits = self._waits / WINDOW, 0.0, 0
        if self._is_settling:  # its tokens were enqueued at the depth before
            self._is_settling = False
        elif self._mean_before is not None:
            self._end_trial(pays=mean < _PAYS * self._mean_before)
        elif self._rest:
            self._rest -= 1
        elif mean > _NEGLIGIBLE_S and self.steps < MOST_STEPS:
            self._mean_before = mean
            self.steps *= 2
            self._is_settling = True

    def _end_trial(self, *, pays: bool) -> None:
        self._mean_before = None
        if pays:
            self._next_rest = 1
            return
        self.steps //= 2
        self._is_settling = True
        self._rest = self._next_rest
        self._next_rest = min(2 * self._next_rest, _LONGEST_REST)
