"""Loads an embedding model: its parts, and the encoder over them."""

from __future__ import annotations

from collections.abc import Callable

from py_engine.config import ChatConfig
from py_engine.gpu.types import Device
from py_engine.models.base import LoadProgress
from py_engine.models.encoder import Encoder, build_encoder, require_activations_fit
from py_engine.models.encoder_parameters import encoder_parameters
from py_engine.models.encoder_steps import encoder_steps
from py_engine.models.parts import load_parts
from py_engine.models.registry import encoder_family
from py_engine.storage.source import ModelSource
from py_engine.weights.formats import weight_format
from py_engine.weights.parameters import layer_names
from py_engine.weights.plan import uniform_layouts, weight_slots


async def load_embedder(
    device: Device,
    source: ModelSource,
    config: ChatConfig,
    on_progress: Callable[[LoadProgress], None],
) -> Encoder:
    """Load the model of `config` from `source` onto `device`; on failure nothing stays there.

    Raises the errors of the family, of `require_activations_fit`, `load_parts` and `build_encoder`.
    """
    family = encoder_family(config)
    spec, form = family.spec(config), weight_format(config)
    require_activations_fit(spec, device.limits)
    parameters = encoder_parameters(spec)
    slots = weight_slots(parameters, layer_names(family.names["mlc"], spec.n_layers), form)
    layouts = uniform_layouts(parameters, form)
    steps = encoder_steps(spec, layouts, device.info.subgroup_size_max)
    kernels = list(dict.fromkeys(step.kernel for step in steps))
    parts = await load_parts(device, source, slots, kernels, on_progress)
    return await build_encoder(device, spec, steps, parts.kernels, parts.weights)
