"""How long a browser takes to answer a read-back, and how many decode steps hide that."""

from __future__ import annotations

import time

from py_engine.gpu.types import Device

FEWEST_STEPS = 2
"""Steps in flight where read-backs are quick: one that is read, one that the GPU computes."""

MOST_STEPS = 16
"""Each may be computed for nothing when a reply ends."""

_QUICKEST_STEP_S = 0.006
_TRIES = 3


async def steps_in_flight(device: Device) -> int:
    """Return how many decode steps to keep in flight on an idle device.

    Chrome answers a read-back in a millisecond or two; Firefox on a timer of 100 ms, in which a GPU
    can do many steps. The quickest of a few read-backs counts, for a busy machine delays some. An
    adapter on the CPU has all of them delayed by what it compiles meanwhile, and gets the fewest.
    """
    if device.info.is_fallback:
        return FEWEST_STEPS
    buffer = device.create_buffer(16, "read-back")
    try:
        nothing = device.program([], "nothing")
        quickest = float("inf")
        for _ in range(_TRIES):
            began = time.perf_counter()
            await nothing.submit_and_read(buffer, 0)
            quickest = min(quickest, time.perf_counter() - began)
    finally:
        buffer.destroy()
    return min(MOST_STEPS, FEWEST_STEPS + int(quickest / _QUICKEST_STEP_S))
