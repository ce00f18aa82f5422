"""Runs kernels in the browser, through the engine's own GPU layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.tuning import PLAIN, Tuning
from tests.conftest import EngineWorker
from tests.kernels.cases import RunKernel


async def _dispatch(
    spec: dict[str, Any], buffers: dict[str, bytes], n_tokens: int
) -> dict[str, bytes]:
    """Run one kernel over copies of `buffers` in the worker; return those that it may write."""
    import asyncio

    from py_engine.gpu import adapter
    from py_engine.gpu.types import Binding, Dispatch, KernelSpec

    if getattr(adapter, "device_under_test", None) is None:
        adapter.device_under_test = await adapter.request_device()
    device = adapter.device_under_test
    spec["bindings"] = tuple(Binding(**binding) for binding in spec["bindings"])
    made = {b.name: device.create_buffer(len(buffers[b.name]), b.name) for b in spec["bindings"]}
    try:
        async with device.check("testing a kernel"):
            for name, data in buffers.items():
                device.write_buffer(made[name], 0, data)
            [kernel] = await device.compile([KernelSpec(**spec)])
            device.program([Dispatch(kernel, tuple(made.values()), n_tokens)], "test").submit()
        written = [b.name for b in spec["bindings"] if b.access == "read_write"]
        read = [device.read_buffer(made[name], 0, len(buffers[name])) for name in written]
        return dict(zip(written, await asyncio.gather(*read), strict=True))
    finally:
        for buffer in made.values():
            buffer.destroy()


async def _subgroup_size_max() -> int | None:
    from py_engine.gpu.adapter import request_device

    return (await request_device()).info.subgroup_size_max


@pytest.fixture(scope="session")
def run_kernel(engine_worker: EngineWorker) -> RunKernel:
    """Dispatch a kernel in the browser over the given bytes."""

    def run(spec: KernelSpec, buffers: Mapping[str, bytes], n_tokens: int) -> dict[str, bytes]:
        found: dict[str, bytes] = engine_worker.run(
            _dispatch, spec=asdict(spec), buffers=dict(buffers), n_tokens=n_tokens
        )
        return found

    return run


@pytest.fixture(scope="session")
def lanes(engine_worker: EngineWorker) -> int | None:
    """The largest subgroup of the adapter under test, None without subgroups."""
    found: int | None = engine_worker.run(_subgroup_size_max)
    return found


@pytest.fixture(params=["subgroups", "plain"])
def tuning(request: pytest.FixtureRequest, lanes: int | None) -> Tuning:
    """The forms to build a kernel in: with the adapter's subgroups, then without."""
    if request.param == "plain":
        return PLAIN
    if lanes is None:
        pytest.skip("this adapter has no subgroups")
    return Tuning(lanes)
