"""Loads a model: weights from its files and kernels for its shapes, at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from py_engine.config import ChatConfig
from py_engine.gpu.types import Device
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

    Kernels compile while the weights download; what fails first ends both. On failure or
    cancellation nothing stays on the GPU.
    Raises the errors of `decoder_spec`, `load_weights` and the device.
    """
    spec = decoder_spec(config)

    loading = asyncio.ensure_future(
        load_weights(
            device,
            source,
            weight_slots(spec),
            lambda done, total: on_progress(LoadProgress("weights", done, total)),
        )
    )
    compiling = asyncio.ensure_future(
        compile_decoder(
            device, spec, lambda done, total: on_progress(LoadProgress("kernels", done, total))
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
    return await build_decoder(device, spec, compiling.result(), loading.result())
