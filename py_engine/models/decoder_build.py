"""Puts a decoder together: its buffers, its forms of kernels, its programs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Buffer, Device
from py_engine.models.compiling import Kernels
from py_engine.models.decoder import Decoder
from py_engine.models.decoder_memory import allocate
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.kv_cache import KvCache, first_cache
from py_engine.models.spec import DecoderSpec
from py_engine.models.vision_plan import Vision

Improve = Callable[[Mapping[str, Buffer]], Awaitable[tuple[DecoderSteps, Kernels]]]
"""Returns steps over the same buffers, which it may use, and their kernels."""


async def build_decoder(
    device: Device,
    spec: DecoderSpec,
    steps: DecoderSteps,
    kernels: Kernels,
    weights: Mapping[str, Buffer],
    vision: Vision | None = None,
    improve: Improve | None = None,
) -> Decoder:
    """Allocate a decoder's buffers and record its programs. The decoder owns `weights` from now on.

    `improve` may put other forms of the steps in the place of these.

    Raises OutOfMemoryError, LimitSupportError, ValidationError or DeviceLostError, after freeing
    everything, `weights` included.
    """
    buffers = dict(weights)
    cache: KvCache | None = None
    try:
        async with device.check("making the model's buffers"):
            allocate(device, spec, steps, buffers)
        if improve is not None:
            steps, kernels = await improve(buffers)
        async with device.check("making the model's programs"):
            cache = first_cache(device, steps.caches)
            return Decoder(device, spec, steps, kernels, buffers, cache, vision)
    except BaseException:
        if cache is not None:
            cache.destroy()
        destroy_buffers(buffers.values())
        raise
