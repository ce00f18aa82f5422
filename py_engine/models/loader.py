"""Loads a language model: its parts, and the decoder over them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from py_engine.chat_config import ActivationDtype
from py_engine.config import ChatConfig
from py_engine.gpu.types import Device, Kernel, KernelSpec
from py_engine.kernels.forms import Forms
from py_engine.kernels.tuning import Tuning, tuning_for
from py_engine.models.attention_limits import most_cache_bytes, require_attention_fits
from py_engine.models.base import LoadingTokenizer, LoadProgress
from py_engine.models.compiling import KernelProgress, Kernels, until_cores_are_free
from py_engine.models.decoder import Decoder
from py_engine.models.decoder_build import build_decoder
from py_engine.models.decoder_memory import decoder_memory, require_chunks_fit
from py_engine.models.decoder_steps import DecoderSteps, decoder_steps
from py_engine.models.form_choice import FormChooser
from py_engine.models.memory_plan import MemoryPlan, require_memory_for
from py_engine.models.model_plan import TowerPlan, find_tower, plan_model
from py_engine.models.parts import load_parts
from py_engine.models.quality_gate import TEXT, QualityGate, allowed_dtype
from py_engine.models.read_backs import steps_in_flight
from py_engine.models.refinement import Refinement, Trial
from py_engine.models.registry import decoder_spec
from py_engine.models.sampler import sampler_kernels
from py_engine.models.spec import DecoderSpec
from py_engine.models.vision import activation_sizes, require_tower_fits
from py_engine.models.vision_plan import Vision
from py_engine.models.vision_steps import stage_kernels, vision_stages
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.layouts import Layouts
from py_engine.weights.plan import WeightPlan

_HEAD_START_S = 0.5
"""How long a tokenizer waits for the first weights, which a slow network may take minutes for."""


@dataclass(frozen=True)
class ModelPlan:
    """What is known of a model before its weights are fetched."""

    spec: DecoderSpec
    steps: DecoderSteps
    weights: WeightPlan
    vision: Vision | None
    kernels: list[KernelSpec]
    memory: MemoryPlan


async def load_model(
    device: Device,
    checkpoint: Checkpoint,
    config: ChatConfig,
    on_progress: Callable[[LoadProgress], None],
    *,
    takes_images: bool = False,
    tokenizer: LoadingTokenizer | None = None,
    chooser: FormChooser | None = None,
    gate: QualityGate | None = None,
) -> Decoder:
    """Load the model of `checkpoint` onto `device`; on failure nothing stays there.

    `config` is the checkpoint's configuration with an application's options. With `takes_images`
    the model's vision tower is loaded too, where it has one. Tokens that `tokenizer` does not have
    are never drawn; what does not depend on it is loaded meanwhile. `chooser` may measure which
    forms of kernels are the fastest; `gate`, which needs the tokenizer, judges activations in 8
    bits.
    Raises the errors of `plan_load`, `require_memory_for`, `load_parts` and `build_decoder`.
    """
    dtype, is_open = await allowed_dtype(device, config, gate if tokenizer else None, checkpoint)
    forms = {} if chooser is None else await chooser.known(device, dtype)
    plan_for = partial(
        plan_load,
        device,
        checkpoint,
        takes_images=takes_images,
        forms=forms,
        activation_dtype=dtype,
    )
    first = await plan_for(config)
    require_memory_for(first.memory, device)
    n_steps = await steps_in_flight(device)  # while nothing else keeps the machine busy

    flowing = asyncio.Event()

    async def final_plan() -> ModelPlan:
        if tokenizer is None:
            return first
        # Python is busy with a vocabulary for long: the GPU has weights to work on meanwhile.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(flowing.wait(), _HEAD_START_S)
        active = min(config.active_vocab_size, await tokenizer.vocab_size())
        if active == config.active_vocab_size:
            return first
        return await plan_for(replace(config, active_vocab_size=active))

    with KernelProgress(len(first.kernels), on_progress) as progress:
        begin = partial(_begin_kernels, device, first, final_plan, progress)
        weights, plan, kernels = await load_parts(
            device, checkpoint.source, first.weights, begin, on_progress, flowing.set
        )
        trial = None
        if is_open and gate is not None and tokenizer is not None:
            trial = Trial(gate, checkpoint, partial(tokenizer.token_ids, TEXT))
        steps_in = partial(_steps, device, plan.spec, plan.weights)
        refinement = Refinement(device, plan.spec, steps_in, chooser, trial, on_progress)
        improve = refinement.of((plan.steps, kernels))
        decoder = await build_decoder(
            device, plan.spec, plan.steps, kernels, weights, plan.vision, improve
        )
    decoder.steps_in_flight = n_steps
    return decoder


async def _begin_kernels(
    device: Device,
    first: ModelPlan,
    final_plan: Callable[[], Awaitable[ModelPlan]],
    progress: KernelProgress,
    loading: asyncio.Future[Any],
) -> tuple[ModelPlan, Kernels]:
    """Begin to compile the kernels of the final plan, those first that come first in a reply."""
    begun: dict[KernelSpec, Kernel] = {}

    def begin(specs: Iterable[KernelSpec]) -> None:
        new = [spec for spec in dict.fromkeys(specs) if spec not in begun]
        begun.update(zip(new, device.begin_compile(new, progress.part()), strict=True))

    if not device.info.is_fallback:
        begin(first.steps.kernels_of_layers)
    plan = await final_plan()
    await until_cores_are_free(device, loading)
    of_decode = plan.steps.kernels_of_decode
    begin(sorted(plan.kernels, key=lambda spec: spec in of_decode))
    return plan, begun


async def plan_load(
    device: Device,
    checkpoint: Checkpoint,
    config: ChatConfig,
    *,
    takes_images: bool = False,
    forms: Forms | None = None,
    activation_dtype: ActivationDtype = "float32",
) -> ModelPlan:
    """Plan what `load_model` will do with the same arguments; only small files are read.

    `forms` are those that were measured on this GPU, among those that `activation_dtype` allows.
    Raises the errors of the family, of `find_tower`, `require_tower_fits`,
    `require_attention_fits`, `require_chunks_fit` and `plan_model`.
    """
    tower = await find_tower(checkpoint, config) if takes_images else None
    spec = _spec(config, tower, device)
    require_attention_fits(spec, device.limits)
    require_chunks_fit(spec, device.limits)
    plan = plan_model(checkpoint, config, device.limits, tower)
    tuning = tuning_for(device.info, device.limits, forms, activation_dtype)
    steps = _steps(device, spec, plan, tuning)
    # The quality of a language model's activations in 8 bits tells nothing of a tower's.
    of_tower = tuning if activation_dtype == "float32" else tuning_for(device.info, device.limits)
    vision = None if tower is None else _vision(tower, plan.layouts, of_tower)
    memory = decoder_memory(spec, steps, plan.gpu_bytes, config.quantization)
    kernels = [*steps.kernels, *sampler_kernels(spec.active_vocab_size, tuning)]
    if vision is not None:
        working = memory.working + sum(activation_sizes(vision.spec).values())
        memory = replace(memory, working=working)
        kernels += stage_kernels(vision.stages)
    return ModelPlan(spec, steps, plan, vision, kernels, memory)


def _steps(device: Device, spec: DecoderSpec, weights: WeightPlan, tuning: Tuning) -> DecoderSteps:
    return decoder_steps(spec, weights.layouts, most_cache_bytes(device.limits), tuning)


def _spec(config: ChatConfig, tower: TowerPlan | None, device: Device) -> DecoderSpec:
    spec = decoder_spec(config)
    if tower is None:
        return spec
    require_tower_fits(tower.spec, device.limits)
    return replace(spec, image_tokens=tower.spec.n_tokens)


def _vision(tower: TowerPlan, layouts: Layouts, tuning: Tuning) -> Vision:
    return Vision(tower.spec, vision_stages(tower.spec, tower.processing, layouts, tuning))
