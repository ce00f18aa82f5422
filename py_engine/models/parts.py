"""Fetches what every model is made of, at the same time: its weights and its kernels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from py_engine.gpu.types import Buffer, Device, Kernel, KernelSpec
from py_engine.models.base import LoadProgress
from py_engine.storage.source import ModelSource
from py_engine.weights.loader import load_weights
from py_engine.weights.plan import WeightSlot


@dataclass(frozen=True)
class ModelParts:
    """Compiled kernels, and the buffers of weights by their names in the plan."""

    kernels: dict[KernelSpec, Kernel]
    weights: dict[str, Buffer]


async def load_parts(
    device: Device,
    source: ModelSource,
    slots: Mapping[str, WeightSlot],
    kernels: Sequence[KernelSpec],
    on_progress: Callable[[LoadProgress], None],
) -> ModelParts:
    """Load the tensors of `slots` while the kernels compile; what fails first ends both.

    On failure or cancellation nothing stays on the GPU.
    Raises the errors of `load_weights` and of the device.
    """
    loading = asyncio.ensure_future(
        load_weights(
            device,
            source,
            list(slots.values()),
            lambda done, total: on_progress(LoadProgress("weights", done, total)),
        )
    )
    compiling = asyncio.ensure_future(
        device.compile(
            kernels,
            lambda done, total: on_progress(LoadProgress("kernels", done, total)),
        )
    )
    try:
        await asyncio.gather(loading, compiling)
    except BaseException:
        loading.cancel()
        compiling.cancel()
        weights, _ = await asyncio.gather(loading, compiling, return_exceptions=True)
        for buffer in weights.values() if isinstance(weights, dict) else ():
            buffer.destroy()
        raise
    tensors = loading.result()
    weights = {name: tensors[slot.name] for name, slot in slots.items()}
    return ModelParts(dict(zip(kernels, compiling.result(), strict=True)), weights)
