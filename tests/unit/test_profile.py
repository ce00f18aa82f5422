"""The kernel profiler: how kernels are timed, and what a request finds after it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.api.objects import plain
from py_engine.config import AppConfig, ModelType
from py_engine.engine import MLCEngine
from py_engine.errors import (
    AbortError,
    ConfigValueError,
    IncorrectPipelineLoadedError,
    ModelNotLoadedError,
    OutOfMemoryError,
    RangeError,
)
from py_engine.gpu.rates import measure_rates
from py_engine.kernels import tuning
from py_engine.kernels.forms import SplitKeys
from tests.conformance.fixtures import Fixture, load_fixture, write_model_folder
from tests.support.event_loop import in_clean_event_loop
from tests.support.fake_host import FakeHost
from tests.support.numpy_device import NumpyDevice
from tests.support.profiling import FIXTURES, GPU, MICROSECONDS, Clock, Host, engine_of

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module", params=FIXTURES)
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return load_fixture(request.param)


@pytest.fixture(scope="module")
def folder(fixture: Fixture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_model_folder(fixture, path)
    return path


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    write_model_folder(load_fixture("gqa_tied_q4f16"), path)
    return path


async def reply_of(engine: MLCEngine) -> str:
    reply = await engine.chat.completions.create(
        messages=MESSAGES, max_tokens=6, temperature=0, seed=1
    )
    return str(reply.choices[0].message.content)


@pytest.mark.parametrize(("alone_keys", "second"), [(41, ()), (40, ("combine",))])
def test_figures_of_a_profile(
    llama: Path, monkeypatch: pytest.MonkeyPatch, alone_keys: int, second: tuple[str, ...]
) -> None:
    gpu = replace(tuning._OTHER_GPU, split_keys=SplitKeys(128, 64, 64, alone_keys))
    monkeypatch.setattr(tuning, "_OTHER_GPU", gpu)

    async def profile() -> Any:
        engine = await engine_of(Host(llama, GPU))
        return plain(await engine.profile_kernels(n_tokens=40))

    found = asyncio.run(profile())
    assert json.loads(json.dumps(found)) == found
    assert (found["model"], found["adapter"], found["n_tokens"]) == ("model", "Roadrunner 3", 40)
    assert found["has_timestamps"] is False
    assert found["prefill"]["position"] + found["prefill"]["n_tokens"] == 40
    assert (found["decode"]["position"], found["decode"]["n_tokens"]) == (40, 1)
    in_layers = ("qkv", "attention", "output", "gate_up", "down")
    expected = {
        "prefill": {"embed": 1, "norm": 4, "rope": 2, **dict.fromkeys(in_layers, 2)},
        "decode": {
            "embed": 1,
            "lm_head": 1,
            "sample": 1,
            **dict.fromkeys((*in_layers, *second), 2),
        },
    }
    for phase, slower in (("prefill", 10), ("decode", 1)):
        kernels = {kernel["kernel"]: kernel for kernel in found[phase]["kernels"]}
        counts = {name: kernel["count"] for name, kernel in kernels.items()}
        assert counts == expected[phase]
        for name, kernel in kernels.items():
            assert kernel["seconds"] == pytest.approx(slower * MICROSECONDS.get(name, 0) / 1e6)
        assert found[phase]["seconds"] == pytest.approx(
            sum(kernel["count"] * kernel["seconds"] for kernel in kernels.values())
        )
    for name in second:  # all keys were in the dispatch before
        assert kernels[name]["nbytes"] == kernels[name]["operations"] == 0
    assert found["copy_bytes_per_s"] == pytest.approx(20e9)
    assert found["read_bytes_per_s"] == pytest.approx((2 * 4 << 20) / 8e-3)
    assert found["operations_per_s"] == pytest.approx(64 * 64 * 256 * 32 / 2e-3)
    qkv = kernels["qkv"]
    assert qkv["bandwidth_fraction"] == pytest.approx(qkv["nbytes"] / 2e-6 / 20e9)
    assert qkv["arithmetic_fraction"] == pytest.approx(
        qkv["operations"] / 2e-6 / found["operations_per_s"]
    )


@pytest.mark.parametrize(
    ("microseconds", "megabytes", "groups"),
    [(100, 64, 16384), (2000, 4, 64)],
    ids=["fast", "slow"],
)
def test_the_rates_of_an_adapter_are_those_of_work_that_is_long_enough(
    monkeypatch: pytest.MonkeyPatch, microseconds: int, megabytes: int, groups: int
) -> None:
    grids: list[tuple[str, int]] = []

    async def note(program: Any) -> None:
        spec = program._dispatches[0].kernel.spec
        grids.append((spec.name, spec.groups_x))

    monkeypatch.setitem(MICROSECONDS, "read", microseconds)
    monkeypatch.setitem(MICROSECONDS, "multiply_add", microseconds)
    device = NumpyDevice()
    rates = asyncio.run(measure_rates(device, Clock(note)))
    assert rates.read_bytes_per_s == pytest.approx((megabytes << 20) / (microseconds * 1e-6))
    operations = groups * 64 * 256 * 32
    assert rates.operations_per_s == pytest.approx(operations / (microseconds * 1e-6))
    assert grids[-1] == ("multiply_add", groups)
    assert device.live_buffers == []


def test_a_kernel_too_fast_for_the_clock_has_no_fraction(
    monkeypatch: pytest.MonkeyPatch, llama: Path
) -> None:
    async def profile() -> Any:
        engine = await engine_of(Host(llama))
        return await engine.profile_kernels(n_tokens=1)

    monkeypatch.setitem(MICROSECONDS, "qkv", 0)
    [qkv] = [each for each in asyncio.run(profile()).decode.kernels if each.kernel == "qkv"]
    assert (qkv.seconds, qkv.bandwidth_fraction, qkv.arithmetic_fraction) == (0, 0, 0)


@pytest.mark.parametrize("n_tokens", [5, 32, 70])
def test_kernels_run_over_the_chunk_that_ends_the_prompt_and_over_the_next_token(
    folder: Path, n_tokens: int
) -> None:
    seen: list[tuple[str, tuple[int, int], int]] = []

    async def run() -> Any:
        host = Host(folder)
        engine = await engine_of(host)
        model: Any = engine._models.select(None, "test")[1]._text_model
        assert model.prefill_chunk_size == 32

        async def note(program: Any) -> None:
            position, chunk, *_ = model._state.buffer.view(np.uint32)
            label = program._dispatches[-1].kernel.spec.label
            seen.append((label, (int(position), int(chunk)), program._n_tokens))
            if label == "sample":
                program.submit()  # moves the sequence

        host.clock = Clock(note)
        return await engine.profile_kernels(n_tokens=n_tokens)

    profile = asyncio.run(run())
    chunk = min(n_tokens, 32)
    before = n_tokens - chunk
    assert (profile.prefill.position, profile.prefill.n_tokens) == (before, chunk)
    assert (profile.decode.position, profile.decode.n_tokens) == (n_tokens, 1)
    chunks = [rest for label, *rest in seen if label.startswith("prefill ")]
    assert chunks == [[(before, chunk), chunk]] * (1 + len(profile.prefill.kernels))
    steps = [rest for label, *rest in seen if label not in ("read", "multiply_add")][len(chunks) :]
    assert steps == [[(n_tokens, 1), 1]] * (1 + len(profile.decode.kernels))


def test_the_next_request_is_answered_as_before(folder: Path) -> None:
    async def measured(program: Any) -> None:
        if program._dispatches[0].kernel.spec.name not in ("read", "multiply_add"):
            program.submit()
            program.submit()

    async def run() -> None:
        host = Host(folder)
        engine = await engine_of(host)
        before = await reply_of(engine)
        memory = host.devices[0].memory
        host.clock = Clock(measured)
        for n_tokens in (1, 70):
            await engine.profile_kernels(n_tokens=n_tokens)
            assert host.devices[0].memory == memory
            assert await reply_of(engine) == before
        # A sequence of raw ids begins anew as well.
        first = await engine.forward_tokens_and_sample([1, 2], True)
        await engine.profile_kernels(n_tokens=5)
        assert 0 <= await engine.forward_tokens_and_sample([first], False)
        assert await reply_of(engine) == before

    asyncio.run(run())


@in_clean_event_loop
async def test_wrong_arguments_are_named(llama: Path) -> None:
    engine = await engine_of(Host(llama))
    for wrong in (None, 1.5, "7", True):
        with pytest.raises(ConfigValueError, match=r"n_tokens is .*, but must be an integer"):
            await engine.profile_kernels(n_tokens=wrong)  # type: ignore[arg-type]
    for wrong in (0, -1, 128):
        with pytest.raises(RangeError, match=rf"n_tokens is {wrong}, but must be from 1 to 127"):
            await engine.profile_kernels(n_tokens=wrong)
    await engine.unload()
    with pytest.raises(ModelNotLoadedError, match="profile_kernels"):
        await engine.profile_kernels()


@in_clean_event_loop
async def test_an_embedding_model_has_no_steps() -> None:
    host = FakeHost("vectors")
    [record] = host.app_config.model_list
    records = AppConfig([replace(record, model_type=ModelType.embedding)])
    engine = MLCEngine({"app_config": records}, host=host)
    await engine.reload("vectors")
    with pytest.raises(IncorrectPipelineLoadedError, match=r"profile_kernels .*'vectors' is an"):
        await engine.profile_kernels()


@in_clean_event_loop
async def test_interrupting_ends_a_profile_and_no_later_one(llama: Path) -> None:
    host = Host(llama)
    engine = await engine_of(host)
    before = await reply_of(engine)
    programs = []

    async def interrupt_at_the_third(program: Any) -> None:
        programs.append(program)
        if len(programs) == 3:
            engine.interrupt_generate()

    host.clock = Clock(interrupt_at_the_third)
    with pytest.raises(AbortError, match=r"interrupt_generate\(\) ended the profile"):
        await engine.profile_kernels(n_tokens=40)
    assert len(programs) == 3
    assert await reply_of(engine) == before
    assert (await engine.profile_kernels(n_tokens=40)).prefill.kernels


@in_clean_event_loop
async def test_unloading_ends_a_profile(llama: Path) -> None:
    host = Host(llama)
    engine = await engine_of(host)
    programs = []

    async def unload_at_the_third(program: Any) -> None:
        programs.append(program)
        if len(programs) == 3:
            await engine.unload()

    host.clock = Clock(unload_at_the_third)
    with pytest.raises(ModelNotLoadedError, match="unloaded during the request"):
        await engine.profile_kernels(n_tokens=40)
    assert len(programs) == 3
    assert host.devices[0].live_buffers == []


@in_clean_event_loop
async def test_without_room_for_the_rates_it_says_so_and_frees_what_it_took(llama: Path) -> None:
    host = Host(llama)
    engine = await engine_of(host)
    before = await reply_of(engine)
    device = host.devices[0]
    memory = device.memory
    device.memory_limit = memory.nbytes + 3_000_000
    assert (await engine.profile_kernels(n_tokens=5)).copy_bytes_per_s > 0
    device.memory_limit = memory.nbytes + 1_500_000
    with pytest.raises(OutOfMemoryError):
        await engine.profile_kernels(n_tokens=5)
    assert device.memory == memory
    assert await reply_of(engine) == before


@in_clean_event_loop
async def test_a_profile_waits_for_its_turn(llama: Path) -> None:
    engine = await engine_of(Host(llama))
    stream = await engine.chat.completions.create(
        messages=MESSAGES, max_tokens=4, temperature=0, stream=True
    )
    await anext(stream)
    profile = asyncio.ensure_future(engine.profile_kernels(n_tokens=3))
    await asyncio.sleep(0.01)
    assert not profile.done()
    text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert text
    assert (await profile).n_tokens == 3
