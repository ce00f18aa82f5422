"""Loads an embedding model: its parts, and the encoder over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from py_engine.config import ChatConfig
from py_engine.gpu.types import Device
from py_engine.kernels.tuning import tuning_for
from py_engine.models.base import LoadProgress
from py_engine.models.compiling import KernelProgress, Kernels, until_cores_are_free
from py_engine.models.encoder import (
    Encoder,
    build_encoder,
    encoder_memory,
    require_activations_fit,
)
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.encoder_steps import encoder_steps
from py_engine.models.memory_plan import MemoryPlan, require_memory_for
from py_engine.models.model_plan import plan_model
from py_engine.models.parts import load_parts
from py_engine.models.registry import encoder_spec
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.plan import WeightPlan


async def load_embedder(
    device: Device,
    checkpoint: Checkpoint,
    config: ChatConfig,
    on_progress: Callable[[LoadProgress], None],
) -> Encoder:
    """Load the model of `checkpoint` onto `device`; on failure nothing stays there.

    `config` is the checkpoint's configuration with an application's options.
    Raises the errors of `plan_embedder_load`, `require_memory_for`, `load_parts` and
    `build_encoder`.
    """
    spec, plan, memory = plan_embedder_load(device, checkpoint, config)
    require_memory_for(memory, device)
    steps = encoder_steps(spec, plan.layouts, tuning_for(device.info, device.limits))
    specs = list(dict.fromkeys(step.kernel for step in steps))
    compiling = KernelProgress(len(specs), on_progress)

    async def begin(loading: asyncio.Future[Any]) -> tuple[None, Kernels]:
        await until_cores_are_free(device, loading)
        return None, dict(zip(specs, device.begin_compile(specs, compiling.part()), strict=True))

    with compiling:
        weights, _, kernels = await load_parts(device, checkpoint.source, plan, begin, on_progress)
        return await build_encoder(device, spec, steps, kernels, weights)


def plan_embedder_load(
    device: Device, checkpoint: Checkpoint, config: ChatConfig
) -> tuple[EncoderSpec, WeightPlan, MemoryPlan]:
    """Plan what `load_embedder` will do with the same arguments.

    Raises the errors of the family, of `require_activations_fit` and `plan_model`.
    """
    spec = encoder_spec(config)
    require_activations_fit(spec, device.limits)
    plan = plan_model(checkpoint, config, device.limits)
    return spec, plan, encoder_memory(spec, plan.gpu_bytes, config.quantization)
