"""Brings what every model is made of, at the same time: its weights and its kernels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from py_engine.errors import ConversionError
from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Buffer, Device
from py_engine.models.base import LoadPhase, LoadProgress
from py_engine.models.compiling import Kernels
from py_engine.storage.source import ModelSource
from py_engine.weights.loader import load_weights
from py_engine.weights.plan import WeightPlan

T = TypeVar("T")

BeginKernels = Callable[[asyncio.Future[Any]], Coroutine[Any, Any, tuple[T, Kernels]]]
"""Begins to compile kernels, given what loads the weights; returns them, and what they are for."""


async def load_parts(
    device: Device,
    source: ModelSource,
    plan: WeightPlan,
    begin_kernels: BeginKernels[T],
    on_progress: Callable[[LoadProgress], None],
    on_flow: Callable[[], object] = lambda: None,
) -> tuple[dict[str, Buffer], T, Kernels]:
    """Load the weights of `plan` while the kernels compile; what fails first ends both.

    Returns the buffers of the weights by their names in the plan, and what `begin_kernels` gives,
    kernels among it that it began to compile, which may take longer than the weights. A source that
    keeps files downloads all that the plan needs meanwhile. `on_flow` is that of `load_weights`. On
    failure or cancellation nothing stays on the GPU.
    Raises the errors of `load_weights`, of the source and of the device.
    """

    def report(phase: LoadPhase) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(LoadProgress(phase, done, total))

    # First: what is read of a file from then on waits for its download.
    fetching = asyncio.ensure_future(_download(source, plan, report("download")))
    load = partial(load_weights, device, source, plan, report("weights"), on_flow)
    loading = asyncio.ensure_future(_load(load, fetching))
    beginning = asyncio.ensure_future(begin_kernels(loading))
    compiling = asyncio.ensure_future(_compiled(device, beginning))
    needed = loading, beginning, fetching
    try:
        await _until_done(needed, compiling)
    except BaseException:
        tasks: list[asyncio.Future[Any]] = [*needed, compiling]
        for task in tasks:
            task.cancel()
        weights, *_ = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(weights, dict):
            destroy_buffers(weights.values())
        raise
    compiling.cancel()
    return loading.result(), *beginning.result()


async def _compiled(device: Device, beginning: Awaitable[tuple[object, Kernels]]) -> None:
    _, kernels = await beginning
    await device.wait_compiled(kernels.values())


async def _until_done(needed: Sequence[asyncio.Future[Any]], watched: asyncio.Future[None]) -> None:
    """Wait for all that is needed, as long as nothing fails, what is only watched included."""
    tasks = (*needed, watched)
    while True:
        for task in tasks:
            if task.done():
                task.result()
        pending = [task for task in tasks if not task.done()]
        if not pending or pending == [watched]:
            return
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


async def _download(
    source: ModelSource, plan: WeightPlan, on_bytes: Callable[[int, int], None]
) -> bool:
    """Let a source that keeps files fetch those that are needed, all together.

    Returns whether what is read of them meanwhile is right.
    """
    download = getattr(source, "download", None)
    if download is None:
        return True
    is_right: bool = await download(
        list(plan.files), lambda done: on_bytes(done, plan.download_bytes)
    )
    return is_right


async def _load(
    load: Callable[[], Awaitable[dict[str, Buffer]]], fetching: Awaitable[bool]
) -> dict[str, Buffer]:
    """Load weights from files that are still coming, again if they came damaged at first."""
    try:
        weights = await load()
    except ConversionError:
        if await fetching:  # the weights are like that
            raise
    else:
        try:
            if await fetching:
                return weights
        except BaseException:
            destroy_buffers(weights.values())
            raise
        destroy_buffers(weights.values())
    return await load()
