"""Tokens per second of a decoder, and where the GPU's time of a step goes."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from py_engine.gpu.clock import GpuClock
from py_engine.models.base import Draw, SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.kernel_costs import step_of_token
from py_engine.models.profile import KernelTiming, time_kernels
from py_engine.models.sampler import draw_role, draw_steps
from py_engine.tooling.gpu_bench.random_data import RandomData
from py_engine.tooling.gpu_bench.random_model import GREEDY, RandomModel, place, set_position

NUCLEUS = SamplingParams(temperature=0.7, top_p=0.95, seed=1)


def cache_bytes(model: RandomModel, position: int) -> int:
    """Return the bytes of keys and values that a step at a position reads."""
    return sum(2 * (position + 1) * cache.shape.slot_bytes for cache in model.steps.caches)


def weight_bytes(model: RandomModel) -> int:
    """Return the bytes of weights that a step reads."""
    steps = [step for step in model.steps.next_logits.of_any if step.kernel.name != "embed"]
    return sum(model.bytes_of(name) for name in {name for step in steps for name in step.buffers})


async def measure_decode(
    clock: GpuClock, data: RandomData, model: RandomModel, position: int, n_tokens: int
) -> dict[str, float]:
    """Decode from a position: by the wall's clock with 1 and 8 steps in flight, and the GPU's."""
    await place(model, data, position, 4 * n_tokens + 600)
    decoder = model.decoder
    found: dict[str, float] = {
        "position": position,
        "kv_bytes": cache_bytes(model, position),
        "weight_bytes": weight_bytes(model),
        "dispatches": len(step_of_token(model.spec, model.steps, position, draw_role(GREEDY))),
    }
    for name, sampling, in_flight in (
        ("greedy", GREEDY, 1),
        ("greedy", GREEDY, 8),
        ("top_p", NUCLEUS, 8),
    ):
        decoder.start(sampling)
        set_position(decoder, position)
        await decode(model, 4, in_flight)  # to warm up
        set_position(decoder, position)
        seconds = await decode(model, n_tokens, in_flight)
        found[f"{name}_tokens_per_s_{in_flight}"] = n_tokens / seconds
    decoder.start(GREEDY)
    set_position(decoder, position)
    await decoder.decode()
    forward = decoder._next(position + 1)
    step = decoder._sampler._chained((forward, decoder._sampler._parts[draw_role(GREEDY)]))
    set_position(decoder, position)
    started = time.perf_counter()
    for _ in range(n_tokens):
        step.submit()
    found["cpu_us_of_submit"] = 1e6 * (time.perf_counter() - started) / n_tokens
    await clock.device.synchronize()
    set_position(decoder, position)
    found["gpu_us"] = 1e6 * await clock.seconds(forward, rounds=2)
    bytes_read = found["kv_bytes"] + found["weight_bytes"]
    found["gpu_bytes_per_s"] = 1e6 * bytes_read / found["gpu_us"]
    return found


async def decode(model: RandomModel, n_tokens: int, in_flight: int) -> float:
    """Return the seconds of so many steps."""
    return await decode_together((model.decoder,), n_tokens, in_flight)


async def decode_together(decoders: Sequence[Decoder], n_tokens: int, in_flight: int) -> float:
    """Return the seconds of so many steps of each of a model's sequences."""

    async def decode_one(decoder: Decoder) -> None:
        pending: deque[Awaitable[Draw]] = deque()
        for _ in range(n_tokens):
            if len(pending) == in_flight:
                await pending.popleft()
            pending.append(decoder.decode())
        while pending:
            await pending.popleft()

    started = time.perf_counter()
    await asyncio.gather(*map(decode_one, decoders))
    return time.perf_counter() - started


async def measure_batches(
    model: RandomModel,
    data: RandomData,
    position: int,
    sizes: Sequence[int],
    n_tokens: int,
    n_dispatches: Callable[[], int],
) -> list[dict[str, float]]:
    """Decode so many sequences together, each from a position; the tokens per second are of all.

    `n_dispatches` returns how many there were so far.
    """
    await place(model, data, position, 2 * n_tokens + 8)
    base, forks, rows = model.decoder, list[Decoder](), []
    for size in sizes:
        while len(forks) < size - 1:
            fork = await base.fork()
            assert fork is not None, f"no room for {size} sequences"
            fork.start(GREEDY)
            await fork.reserve(position + 2 * n_tokens + 8)
            forks.append(fork)
        decoders = (base, *forks[: size - 1])
        if size > 1:
            await base._batcher._prepare(size)
        for n_steps in (2, n_tokens):  # the first ones record the program
            for decoder in decoders:
                set_position(decoder, position)
            before = n_dispatches()
            seconds = await decode_together(decoders, n_steps, base.steps_in_flight)
        rows.append(
            {
                "sequences": size,
                "tokens_per_s": size * n_tokens / seconds,
                "dispatches_per_token": (n_dispatches() - before) / size / n_tokens,
            }
        )
    for fork in forks:
        fork.destroy()
    return rows


async def logits_at(model: RandomModel, data: RandomData, position: int) -> array[float]:
    """Return the logits of a step at a position."""
    await place(model, data, position, 600)
    model.decoder.next_logits()
    return await model.decoder.read_logits()


async def measure_kernels(
    clock: GpuClock, data: RandomData, model: RandomModel, position: int
) -> list[dict[str, Any]]:
    """Time each kernel of a decode step at a position, and both kinds of draws.

    "alone" is the time of a dispatch in a pass of this kernel's dispatches in all layers; "in_step"
    is by how much a whole step takes longer with them than without, over their number.
    """
    await place(model, data, position, 600)
    decoder = model.decoder
    steps = model.steps.next_logits.of(position + 1)
    whole = await clock.seconds(decoder._next(position + 1), rounds=2)
    rows = []
    for timing in await time_kernels(decoder, clock, steps, position):
        kernel, n = timing.cost.kernel, len(timing.cost.steps)
        others = [step for step in steps if step.kernel is not kernel]
        without = await clock.seconds(decoder.program(others, "others"), rounds=2)
        rows.append(_row(kernel.label, timing, (whole - without) / n))
    for name, sampling in (("greedy", GREEDY), ("top_p", NUCLEUS)):
        decoder.start(sampling)
        set_position(decoder, position)
        role = draw_role(sampling)
        draw = draw_steps(model.spec.active_vocab_size, model.steps.tuning, (role,))
        timings = await time_kernels(decoder, clock, draw, position)
        rows += [_row(f"{name} {each.cost.kernel.label}", each, each.seconds) for each in timings]
    return rows


def _row(kernel: str, timing: KernelTiming, in_step: float) -> dict[str, Any]:
    cost, alone = timing.cost, timing.seconds
    return {
        "kernel": kernel,
        "n": len(cost.steps),
        "alone_us": 1e6 * alone,
        "in_step_us": 1e6 * in_step,
        "total_us": 1e6 * alone * len(cost.steps),
        "bytes": cost.nbytes,
        "GB_per_s": cost.nbytes / alone / 1e9,
    }


async def measure_prefill(model: RandomModel, n_tokens: int) -> dict[str, float]:
    """Prefill a prompt in the engine's chunks."""
    decoder = model.decoder
    chunk = decoder.prefill_chunk_size
    decoder.start(GREEDY)
    await decoder.reserve(n_tokens)
    await decoder.prefill([1] * 8)  # to warm up
    await decoder.sample()
    decoder.start(GREEDY)
    started = time.perf_counter()
    for first in range(0, n_tokens, chunk):
        await decoder.prefill([1 + i % 1000 for i in range(min(chunk, n_tokens - first))])
    await decoder.sample()
    seconds = time.perf_counter() - started
    return {"tokens": n_tokens, "chunk": chunk, "tokens_per_s": n_tokens / seconds}


async def measure_prefill_kernels(
    clock: GpuClock, model: RandomModel, n_tokens: int
) -> list[dict[str, Any]]:
    """Time each kernel of a prefill chunk at the sequence's beginning."""
    decoder = model.decoder
    decoder.start(GREEDY)
    await decoder.prefill([1] * n_tokens)
    timings = await time_kernels(decoder, clock, model.steps.prefill, 0, n_tokens)
    return [
        {
            "kernel": timing.cost.kernel.label,
            "n": len(timing.cost.steps),
            "us": 1e6 * timing.seconds,
            "total_ms": 1e3 * timing.seconds * len(timing.cost.steps),
            "TFLOP_per_s": timing.cost.operations / timing.seconds / 1e12,
        }
        for timing in timings
    ]
