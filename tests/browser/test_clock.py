"""How often the clock replays a program, and which grids it replays."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.engine_worker import EngineWorker


async def _measure(script: list[float]) -> dict[str, Any]:
    """Time a program over 7 rows with a clock whose passes take as long as `script` says."""
    from py_engine.gpu.adapter import request_device
    from py_engine.gpu.clock import clock_of
    from py_engine.gpu.types import Dispatch
    from py_engine.kernels.norm import Norm
    from py_engine.kernels.rows import row_norm

    device = await request_device()
    [kernel] = await device.compile([row_norm("norm", 64, 16, Norm("rms", 1e-5))])
    sizes = [4 * 64 * 16, 4 * 64, 16, 4 * 64 * 16]
    buffers = [device.create_buffer(size, f"buffer {size}") for size in sizes]
    program = device.program([Dispatch(kernel, tuple(buffers))], "rows")
    program.set_n_tokens(7)
    clock = clock_of(device)
    passes = []

    async def once(listed: Any, repeats: int) -> float:
        passes.append((repeats, [list(dispatch[2:]) for dispatch in listed]))
        return script[len(passes) - 1]

    clock.once = once  # type: ignore[method-assign]
    seconds = await clock.seconds(program)
    device.destroy()
    return {"seconds": seconds, "passes": passes}


@pytest.mark.parametrize(
    ("script", "repeats", "seconds"),
    [
        ([0.001, 9.0, 0.010, 0.005, 0.020], [1, 5, 5, 5, 5], 0.001),
        ([0.9, 9.0, 0.8, 0.7, 0.6], [1, 1, 1, 1, 1], 0.6),
        ([3.0, 2.0], [1, 1], 2.0),
        ([2.0, 3.0], [1, 1], 2.0),
    ],
)
def test_long_programs_are_replayed_less_often(
    engine_worker: EngineWorker, script: list[float], repeats: list[int], seconds: float
) -> None:
    found = engine_worker.run(_measure, script=script)
    assert found["seconds"] == pytest.approx(seconds)
    assert found["passes"] == [[each, [[1, 7, 1]]] for each in repeats]
