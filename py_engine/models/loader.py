"""Loads a language model: its parts, and the decoder over them."""

from __future__ import annotations

from collections.abc import Callable

from py_engine.config import ChatConfig
from py_engine.gpu.types import Device
from py_engine.models.attention_limits import require_attention_fits
from py_engine.models.base import LoadProgress
from py_engine.models.decoder import Decoder, build_decoder, decoder_kernels
from py_engine.models.parts import load_parts
from py_engine.models.registry import decoder_spec
from py_engine.storage.source import ModelSource
from py_engine.weights.plan import weight_slots


async def load_model(
    device: Device,
    source: ModelSource,
    config: ChatConfig,
    on_progress: Callable[[LoadProgress], None],
) -> Decoder:
    """Load the model of `config` from `source` onto `device`; on failure nothing stays there.

    Raises the errors of `decoder_spec`, `require_attention_fits`, `load_parts` and `build_decoder`.
    """
    spec = decoder_spec(config)
    require_attention_fits(spec, device.limits)
    kernels = decoder_kernels(spec, device.info.subgroup_size_max)
    parts = await load_parts(device, source, weight_slots(spec), kernels, on_progress)
    return await build_decoder(device, spec, parts.kernels, parts.weights)
