"""Loads an embedding model: its parts, and the encoder over them."""

from __future__ import annotations

from collections.abc import Callable

from py_engine.config import ChatConfig
from py_engine.gpu.types import Device
from py_engine.models.base import LoadProgress
from py_engine.models.encoder import (
    Encoder,
    build_encoder,
    encoder_kernels,
    require_activations_fit,
)
from py_engine.models.parts import load_parts
from py_engine.models.registry import encoder_spec
from py_engine.storage.source import ModelSource
from py_engine.weights.encoder_plan import encoder_slots


async def load_embedder(
    device: Device,
    source: ModelSource,
    config: ChatConfig,
    on_progress: Callable[[LoadProgress], None],
) -> Encoder:
    """Load the model of `config` from `source` onto `device`; on failure nothing stays there.

    Raises the errors of `encoder_spec`, `require_activations_fit`, `load_parts` and
    `build_encoder`.
    """
    spec = encoder_spec(config)
    require_activations_fit(spec, device.limits)
    kernels = encoder_kernels(spec, device.info.subgroup_size_max)
    parts = await load_parts(device, source, encoder_slots(spec), kernels, on_progress)
    return await build_encoder(device, spec, parts.kernels, parts.weights)
