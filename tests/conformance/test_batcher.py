"""Sequences that decode together get the tokens that each gets alone.

Greedy ones are those of transformers. Sequences begin and end at different times, draw in different
ways, and begin with what another one has already.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from py_engine.errors import OutOfMemoryError, ValidationError
from py_engine.kernels import sampling, tuning
from py_engine.kernels.tuning import Tuning
from py_engine.models.base import SamplingParams
from tests.conformance.fixtures import fixture_names, load_fixture, write_model_folder
from tests.conformance.running import drive_in_worker, drive_on_numpy, load_on_numpy
from tests.conformance.test_growing_cache import (  # noqa: F401 (one is a fixture)
    small_caches,
    small_caches_in,
)
from tests.conftest import EngineWorker
from tests.support.event_loop import in_event_loop
from tests.support.numpy_device import NumpyDevice
from tests.support.small_gpu import SmallGpu

ON_WEBGPU = ["gqa_tied_q4f16", "mistral_window_24_q0f32", "qwen3_5_tied_q4f16"]


async def drive(
    model: Any, prompt: list[int], n_tokens: int, prefix_lengths: list[int]
) -> dict[str, Any]:
    """Decode sequences alone and together; this runs in the worker too."""
    import asyncio
    from collections import deque

    from py_engine.models.base import SamplingParams

    half = len(prompt) // 2
    asked = [  # prompt, settings, tokens, and after how many steps of the first one it begins
        (prompt, SamplingParams(temperature=0), n_tokens, 0),
        (prompt[:half], SamplingParams(temperature=1.5, seed=7), n_tokens // 2, 0),
        (prompt, SamplingParams(0.8, seed=3, presence_penalty=1.0), n_tokens, 2),
        (prompt[:-3], SamplingParams(temperature=0, top_logprobs=2), 5, 3),
        (prompt, SamplingParams(0.9, top_p=0.7, seed=1, logit_bias={3: 2.0}), n_tokens, 4),
    ]
    prefilling = asyncio.Lock()
    first: list[Any] = []  # the draws of the first one
    begins: dict[int, list[Any]] = {}  # what waits for so many of them

    async def reply(sequence: Any, number: int, kept: int, draws: list[Any]) -> list[Any]:
        ids, sampling, most, _ = asked[number]
        async with prefilling:
            sequence.start(sampling, kept, len(ids))
            for start in range(kept, len(ids), sequence.prefill_chunk_size):
                await sequence.prefill(ids[start : start + sequence.prefill_chunk_size])
            steps = deque([sequence.sample()])
        n_enqueued = 1
        while len(draws) < most:
            while n_enqueued < most and len(steps) < 2:
                await sequence.reserve(1)
                steps.append(sequence.decode())
                n_enqueued += 1
            draws.append(await steps.popleft())
            for ready in begins.get(len(draws), ()) if draws is first else ():
                ready.set_result(None)
        return draws

    alone = [await reply(model, number, 0, []) for number in range(len(asked))]
    forks = []
    while len(forks) < len(asked) - 1:
        fork = await model.fork()
        if fork is None:
            return {"greedy": [draw.token_id for draw in alone[0]], "can_fork": False}
        forks.append(fork)

    counts = []
    together = model._batcher._together

    def count(program: Any, joining: Any) -> None:
        counts.append(len(joining))
        together(program, joining)

    model._batcher._together = count
    # What batches need is made in the background; it must not be what the steps wait for.
    for batch in (2, 4, 8):
        await model._batcher._prepare(batch)
    adopted = []

    async def later(sequence: Any, number: int) -> list[Any]:
        if asked[number][3]:
            ready = asyncio.get_running_loop().create_future()
            begins.setdefault(asked[number][3], []).append(ready)
            await ready
        kept = 0
        if number == 4:
            async with prefilling:
                kept = await sequence.adopt(model, len(asked[number][0]) - 1)
                adopted.append(kept)
        return await reply(sequence, number, kept, [])

    running = [reply(model, 0, 0, first)]
    running += [later(fork, number) for number, fork in enumerate(forks, 1)]
    found = await asyncio.gather(*running)
    for fork in forks:
        fork.destroy()
    same = [
        [draw.token_id for draw in one] == [draw.token_id for draw in other]
        for one, other in zip(alone, found, strict=True)
    ]
    return {
        "greedy": [draw.token_id for draw in found[0]],
        "can_fork": True,
        "same": same,
        "has_logprobs": all(draw.logprob is not None for draw in found[3]),
        "rows": counts,
        "adopted": adopted,
    }


def check(found: dict[str, Any], name: str) -> None:
    fixture = load_fixture(name)
    assert found["greedy"] == fixture.greedy_ids
    if not found["can_fork"]:
        assert "rope" in name, "it could have more sequences"
        return
    assert found["same"] == [True] * 5
    assert found["has_logprobs"]
    assert {2, 3, 4} & set(found["rows"]) and max(found["rows"]) >= 3, "they went alone"
    adopted = 0 if "qwen3_5" in name else len(fixture.prompt_ids) - 1
    assert found["adopted"] in ([adopted], [0] if "window" in name else [adopted])


@pytest.mark.sampled
@pytest.mark.parametrize("name", fixture_names())
def test_on_numpy(name: str, tmp_path: Path) -> None:
    check(run_on_numpy(name, tmp_path), name)


@pytest.mark.usefixtures("small_caches")
def test_while_caches_grow(tmp_path: Path) -> None:
    check(run_on_numpy("gqa_tied_q4f16", tmp_path), "gqa_tied_q4f16")


def test_with_draws_of_several_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "PLAIN", Tuning(sample_slices=4))
    monkeypatch.setattr(sampling, "_LEAST_SLICE", 16)
    fixture, device = load_fixture("gqa_tied_q4f16"), NumpyDevice()
    asyncio.run(load_on_numpy(tmp_path, fixture, device))
    assert {"survey", "candidates"} <= set(device.live_buffers), "draws are of one kernel"
    check(run_on_numpy("gqa_tied_q4f16", tmp_path), "gqa_tied_q4f16")


def run_on_numpy(name: str, folder: Path) -> dict[str, Any]:
    fixture = load_fixture(name)
    write_model_folder(fixture, folder)
    return drive_on_numpy(drive, folder, fixture)


@pytest.mark.parametrize("name", ON_WEBGPU)
def test_on_webgpu(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture(name)
    write_model_folder(fixture, tmp_path)
    check(drive_in_worker(drive, tmp_path, fixture, engine_worker), name)


@pytest.mark.parametrize("name", ON_WEBGPU[:2])
def test_while_caches_grow_on_webgpu(
    name: str, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    """Each growth moves the caches of all sequences, steps of which are in flight."""
    fixture = load_fixture(name)
    write_model_folder(fixture, tmp_path)
    with small_caches_in(engine_worker):
        check(drive_in_worker(drive, tmp_path, fixture, engine_worker), name)


@pytest.mark.usefixtures("small_caches")
@in_event_loop
async def test_a_full_gpu_ends_one_reply_and_the_one_beside_it_goes_on(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), SmallGpu()
    model = await load_on_numpy(tmp_path, fixture, device)
    fork = await model.fork()
    assert fork is not None
    ids, most = fixture.prompt_ids, len(fixture.greedy_ids)
    assert await decoded_together((model, fork), ids, 6) == [fixture.greedy_ids[:6]] * 2
    model.start(SamplingParams(temperature=0))
    await model.reserve(len(ids) + most)
    device.budget = device.held
    found = await asyncio.gather(
        decoded_together((model,), ids, most),
        decoded_together((fork,), ids, 4 * most),
        return_exceptions=True,
    )
    assert found[0] == [fixture.greedy_ids]
    assert isinstance(found[1], OutOfMemoryError)
    device.budget = 1 << 30
    await fork.reserve(most)
    assert await decoded_together((fork, model), ids, most) == [fixture.greedy_ids] * 2
    model.destroy()  # in any order
    fork.destroy()
    assert device.live_buffers == []


@in_event_loop
async def test_only_draws_with_kernels_of_their_own_are_dispatched_alone(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), NumpyDevice()
    model: Any = await load_on_numpy(tmp_path, fixture, device)
    settings = (
        SamplingParams(temperature=0),
        SamplingParams(0.8, seed=3, presence_penalty=1.0),
        SamplingParams(1.5, seed=7),
        SamplingParams(temperature=0, logit_bias={3: 2.0}),
    )
    sequences = [model, *[await model.fork() for _ in settings[1:]]]
    await model._batcher._prepare(len(settings))
    for sequence, how in zip(sequences, settings, strict=True):
        sequence.start(how)
        await sequence.prefill(fixture.prompt_ids[:3])
        await sequence.sample()
        await sequence.reserve(2)
    for _ in range(2):  # the first one's first step does not wait for the others
        device.dispatched.clear()
        await asyncio.gather(*(sequence.decode() for sequence in sequences))
    labels = Counter(device.dispatched)
    assert labels["embed"] == labels["lm_head"] == 1
    assert labels["adjust"] == 2 and labels["sample"] == 3


@in_event_loop
async def test_a_full_gpu_has_no_more_sequences_and_no_batches(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), SmallGpu()
    model = await load_on_numpy(tmp_path, fixture, device)
    n_buffers = len(device.live_buffers)
    device.budget = device.held + 1000
    with pytest.raises(OutOfMemoryError, match="making room for another sequence"):
        await model.fork()
    assert len(device.live_buffers) == n_buffers
    device.budget = 1 << 30
    fork = await model.fork()
    assert fork is not None
    device.budget = device.held + 1000
    for _ in range(2):  # the second time it is known not to work
        assert (
            await decoded_together((model, fork), fixture.prompt_ids, 6)
            == [fixture.greedy_ids[:6]] * 2
        )
    fork.destroy()
    model.destroy()
    assert device.live_buffers == []


@in_event_loop
async def test_a_model_that_is_freed_fails_the_steps_that_wait(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), NumpyDevice()
    model = await load_on_numpy(tmp_path, fixture, device)
    fork = await model.fork()
    assert fork is not None
    await decoded_together((model, fork), fixture.prompt_ids, 6)
    await model.reserve(1)
    await fork.reserve(2)
    in_flight = [model.decode(), fork.decode()]
    waits = fork.decode()  # for the other's next step
    fork.destroy()
    model.destroy()
    with pytest.raises(ValidationError, match="freed"):
        await waits
    await asyncio.gather(*in_flight)


@pytest.mark.usefixtures("small_caches")
@in_event_loop
async def test_a_cache_grows_into_the_memory_of_another_sequence(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), SmallGpu()
    model = await load_on_numpy(tmp_path, fixture, device)
    fork = await model.fork()
    assert fork is not None
    ids = fixture.prompt_ids
    await decoded_together((fork,), ids, 6)
    model.free_memory = lambda: fork.destroy() is None
    device.budget = device.held + 1000
    assert await decoded_together((model,), ids, 6) == [fixture.greedy_ids[:6]]
    model.free_memory = lambda: False
    device.budget = 1 << 30
    fork = await model.fork()  # its place is free again
    assert fork is not None
    fork.destroy()
    model.destroy()
    assert device.live_buffers == []


@pytest.mark.usefixtures("small_caches")
@in_event_loop
async def test_a_prompt_is_computed_where_the_one_to_copy_had_to_go(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), SmallGpu()
    model = await load_on_numpy(tmp_path, fixture, device)
    fork = await model.fork()
    assert fork is not None
    ids = fixture.prompt_ids
    await decoded_together((fork,), ids, 2)
    device.budget = device.held + 1000
    model.free_memory = lambda: fork.destroy() is None
    assert await model.adopt(fork, len(ids) - 1) == 0
    device.budget = 1 << 30
    assert await decoded_together((model,), ids, 6) == [fixture.greedy_ids[:6]]
    model.destroy()
    assert device.live_buffers == []


async def decoded_together(
    sequences: tuple[Any, ...], prompt: list[int], n_tokens: int
) -> list[list[int]]:
    """Return the greedy tokens of several sequences with the same prompt."""

    async def decode(sequence: Any) -> list[int]:
        tokens = [(await sequence.sample()).token_id]
        while len(tokens) < n_tokens:
            await sequence.reserve(1)
            tokens.append((await sequence.decode()).token_id)
        return tokens

    running = []
    for sequence in sequences:
        sequence.start(SamplingParams(temperature=0))
        for start in range(0, len(prompt), sequence.prefill_chunk_size):
            await sequence.prefill(prompt[start : start + sequence.prefill_chunk_size])
        running.append(asyncio.ensure_future(decode(sequence)))
        await asyncio.sleep(0)  # its first draw comes before the next one's prefill
    return list(await asyncio.gather(*running))
