"""Profiles of kernels to make traces of, and what these have."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any


def any_profile() -> dict[str, Any]:
    """Return a profile with 500 dispatches in each phase."""
    random_ = random.Random(11)
    phases = {"prefill": _phase(random_, 0, 33), "decode": _phase(random_, 33, 1)}
    return {"model": "some-model", "adapter": "Roadrunner 3", "n_tokens": 33, **phases}


def _phase(random_: random.Random, position: int, n_tokens: int) -> dict[str, Any]:
    """Return dispatches that take from 0 to 10 s each, of no whole nanoseconds."""
    kernels = [
        {
            "kernel": f"kernel {number}",
            "shape": "2 x 3" if number else "",
            "seconds": 10 ** random_.uniform(-8, 1) if number else 0.0,
            "nbytes": 2**number,
            "operations": 3**number,
        }
        for number in range(30)
    ]
    numbers = [random_.randrange(len(kernels)) for _ in range(500)]
    dispatches = [
        {"kernel": kernel, "layer": None if index > 480 else index // 20}
        for index, kernel in enumerate(numbers)
    ]
    figures = {"position": position, "n_tokens": n_tokens, "seconds": 1.0}
    return {**figures, "kernels": kernels, "dispatches": dispatches}


def slices_of(trace: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a trace's slices in their order."""
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def nanoseconds(event: Mapping[str, Any]) -> tuple[int, int]:
    """Return begin and duration of a slice as Perfetto has them."""
    return round(1000 * event["ts"]), round(1000 * event["dur"])
