"""Loads a language model: its parts, and the decoder over them."""

from __future__ import annotations

from collections.abc import Callable

from py_engine.config import ChatConfig
from py_engine.gpu.types import Device
from py_engine.models.attention_limits import most_cache_bytes, require_attention_fits
from py_engine.models.base import LoadProgress
from py_engine.models.decoder import Decoder, build_decoder
from py_engine.models.decoder_memory import decoder_memory, require_chunks_fit
from py_engine.models.decoder_steps import decoder_steps
from py_engine.models.memory_plan import require_memory_for
from py_engine.models.model_plan import plan_model
from py_engine.models.parts import load_parts
from py_engine.models.registry import decoder_spec
from py_engine.models.sampler import sampler_kernels
from py_engine.weights.checkpoint import Checkpoint


async def load_model(
    device: Device,
    checkpoint: Checkpoint,
    config: ChatConfig,
    on_progress: Callable[[LoadProgress], None],
) -> Decoder:
    """Load the model of `checkpoint` onto `device`; on failure nothing stays there.

    `config` is the checkpoint's configuration with an application's options.
    Raises the errors of the family, of `require_attention_fits`, `require_chunks_fit`,
    `plan_model`, `require_memory_for`, `load_parts` and `build_decoder`.
    """
    spec = decoder_spec(config)
    require_attention_fits(spec, device.limits)
    require_chunks_fit(spec, device.limits)
    plan = plan_model(checkpoint, config, device.limits)
    steps = decoder_steps(
        spec,
        plan.layouts,
        most_cache_bytes(device.limits),
        device.info.subgroup_size_max,
    )
    memory = decoder_memory(spec, steps, plan.gpu_bytes, config.quantization)
    require_memory_for(memory, device)
    kernels = [*steps.kernels, *sampler_kernels(spec.active_vocab_size).values()]
    parts = await load_parts(device, checkpoint.source, plan, kernels, on_progress)
    return await build_decoder(device, spec, steps, parts.kernels, parts.weights)
