"""Loads a model: weights from its files and kernels for its shapes, at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from py_engine.config import ChatConfig
from py_engine.gpu.types import Device, Kernel
from py_engine.models.base import LoadProgress
from py_engine.models.decoder import Decoder, build_decoder, compile_decoder
from py_engine.models.registry import decoder_spec
from py_engine.storage.source import ModelSource
from py_engine.weights.loader import load_weights
from py_engine.weights.plan import weight_slots


async def load_model(
    device: Device,
    source: ModelSource,
    config: ChatConfig,
    on_progress: Callable[[LoadProgress], None],
) -> Decoder:
    """Load the model of `config` from `source` onto `device`.

    Kernels compile while the weights download. On failure or cancellation nothing stays on the GPU.
    Raises the errors of `decoder_spec`, `load_weights` and the device.
    """
    spec = decoder_spec(config)

    async def kernels() -> dict[str, Kernel]:
        return await compile_decoder(
            device, spec, lambda done, total: on_progress(LoadProgress("kernels", done, total))
        )

    compiling = asyncio.ensure_future(kernels())
    try:
        weights = await load_weights(
            device,
            source,
            weight_slots(spec),
            lambda done, total: on_progress(LoadProgress("weights", done, total)),
        )
    except BaseException:
        compiling.cancel()
        raise
    try:
        compiled = await compiling
    except BaseException:
        for buffer in weights.values():
            buffer.destroy()
        raise
    return await build_decoder(device, spec, compiled, weights)
