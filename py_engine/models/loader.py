"""Loads a language model: its parts, and the decoder over them."""

from __future__ import annotations

from collections.abc import Callable

from py_engine.config import ChatConfig
from py_engine.gpu.types import Device
from py_engine.models.attention_limits import most_cache_bytes, require_attention_fits
from py_engine.models.base import LoadProgress
from py_engine.models.decoder import Decoder, build_decoder
from py_engine.models.decoder_parameters import decoder_parameters
from py_engine.models.decoder_steps import decoder_steps
from py_engine.models.parts import load_parts
from py_engine.models.registry import decoder_family
from py_engine.models.sampler import sampler_kernels
from py_engine.storage.source import ModelSource
from py_engine.weights.formats import weight_format
from py_engine.weights.parameters import layer_names
from py_engine.weights.plan import uniform_layouts, weight_slots


async def load_model(
    device: Device,
    source: ModelSource,
    config: ChatConfig,
    on_progress: Callable[[LoadProgress], None],
) -> Decoder:
    """Load the model of `config` from `source` onto `device`; on failure nothing stays there.

    Raises the errors of the family, of `require_attention_fits`, `load_parts` and `build_decoder`.
    """
    family = decoder_family(config)
    spec, form = family.spec(config), weight_format(config)
    require_attention_fits(spec, device.limits)
    parameters = decoder_parameters(spec)
    slots = weight_slots(parameters, layer_names(family.names["mlc"], spec.n_layers), form)
    steps = decoder_steps(
        spec,
        uniform_layouts(parameters, form),
        most_cache_bytes(device.limits),
        device.info.subgroup_size_max,
    )
    kernels = [*steps.kernels, *sampler_kernels(spec.active_vocab_size).values()]
    parts = await load_parts(device, source, slots, kernels, on_progress)
    return await build_decoder(device, spec, steps, parts.kernels, parts.weights)
