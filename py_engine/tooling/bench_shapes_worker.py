"""The part of `bench --shapes` that runs inside the worker, next to the engine."""

from __future__ import annotations

import json
import time
from typing import Any

import pywebllm_bridge as bridge

from py_engine.chat_config import ChatConfig
from py_engine.gpu.adapter import request_device
from py_engine.gpu.clock import clock_of
from py_engine.gpu.rates import measure_rates
from py_engine.gpu.webgpu import WebGPUProgram
from py_engine.kernels.attention_split import most_keys
from py_engine.kernels.tuning import tuning_for
from py_engine.models.kernel_costs import step_of_token
from py_engine.models.sampler import draw_role
from py_engine.tooling.gpu_bench.decoding import decode, measure_batches, measure_prefill
from py_engine.tooling.gpu_bench.random_data import RandomData
from py_engine.tooling.gpu_bench.random_model import (
    GREEDY,
    RandomModel,
    model_config,
    place,
    random_model,
    set_position,
)

COUNTERS = ("dispatches", "passes", "submits", "readbacks", "bytesRead")
NULL_STEPS = 20
_ROUNDS = 3


async def measure(
    shapes: str, n_tokens: int, contexts: list[int], prompt_tokens: int, batches: list[int]
) -> str:
    """Build a model of a real model's shapes with random weights; return its figures as JSON.

    Decodes `n_tokens` after each of `contexts`, and as many of several sequences together, each of
    `batches`, after the first of them. Prefills a prompt of `prompt_tokens`. A context's
    `cache_s` is what a kernel that only reads needs for as many bytes as keys and values have.
    """
    device = await request_device()
    data = await RandomData.compiled(device)
    await device.synchronize()
    config = model_config(shapes)
    started = time.perf_counter()
    model = await random_model(device, config, data, tuning_for(device.info, device.limits))
    await device.synchronize()
    figures: dict[str, Any] = {
        "shapes": shapes,
        "adapter": str(device.info),
        "build_s": time.perf_counter() - started,
        "pipelines": len(model.steps.kernels),
        "prefill_tokens_per_s": (await measure_prefill(model, prompt_tokens))["tokens_per_s"],
        "prompt_tokens": prompt_tokens,
        "gpu_bytes": device.memory.nbytes,
        "decode": [],
    }
    rates = await measure_rates(device, clock_of(device))
    for context in contexts:
        await place(model, data, context, 2 * n_tokens + 8)
        await decode(model, 2, model.decoder.steps_in_flight)
        set_position(model.decoder, context)
        before = _counters()
        seconds = await decode(model, n_tokens, model.decoder.steps_in_flight)
        after = _counters()
        counts = {name: (after[name] - before[name]) / n_tokens for name in COUNTERS}
        figures["decode"].append(
            {
                "context": context,
                "tokens_per_s": n_tokens / seconds,
                "counts": counts,
                "cache_s": _cache_bytes(model, context) / rates.read_bytes_per_s,
            }
        )
    figures["batches"] = await measure_batches(
        model, data, contexts[0], batches, n_tokens, lambda: _counters()["dispatches"]
    )
    if device.info.has_int8_dot:
        figures["int8_over_float32"] = await _int8(model, config, data, contexts[0], n_tokens)
    for name, workgroups in (("one", 1), ("none", 0)):
        figures[f"null_{name}_ms"] = 1e3 * await _null_step(model, workgroups)
    model.decoder.destroy()
    device.destroy()
    return json.dumps(figures)


def _cache_bytes(model: RandomModel, context: int) -> int:
    """Return the bytes of all keys and values that the query after so many tokens sees."""
    shapes = [cache.shape for cache in model.steps.caches]
    return sum(2 * min(context, most_keys(shape)) * shape.slot_bytes for shape in shapes)


async def _int8(
    model: RandomModel, config: ChatConfig, data: RandomData, context: int, n_tokens: int
) -> float:
    """Return a model's tokens per second with activations in 8 bits over those in f32.

    Both decode in turn; the best round of each counts.
    """
    device = model.decoder.device
    tuning = tuning_for(device.info, device.limits, activation_dtype="int8")
    models = (model, await random_model(device, config, data, tuning))
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for each, found in zip(models, seconds, strict=True):
            await place(each, data, context, 2 * n_tokens + 8)
            await decode(each, 2, each.decoder.steps_in_flight)
            found.append(await decode(each, n_tokens, each.decoder.steps_in_flight))
    models[1].decoder.destroy()
    return min(seconds[0]) / min(seconds[1])


def _counters() -> dict[str, int]:
    return {name: int(getattr(bridge.counters, name)) for name in COUNTERS}


async def _null_step(model: RandomModel, workgroups: int) -> float:
    """Return the seconds of a step with its read-back when each dispatch has so many workgroups.

    What is left without any is what the engine, the browser and the adapter need beside the
    arithmetic. One workgroup of ours does more than one of an engine with smaller ones.
    """
    decoder = model.decoder
    steps = step_of_token(model.spec, model.steps, 1, draw_role(GREEDY))
    step = decoder.program(steps, "null step")
    assert isinstance(step, WebGPUProgram)
    for part in step.handle.parts:
        part.grid.fill(workgroups)
    state = decoder._buffers["state"]
    set_position(model.decoder, 1)
    await step.submit_and_read(state, 8)
    started = time.perf_counter()
    for _ in range(NULL_STEPS):
        await step.submit_and_read(state, 8)
    return (time.perf_counter() - started) / NULL_STEPS
