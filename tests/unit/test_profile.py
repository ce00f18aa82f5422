"""The kernel profiler: what kernels cost, how they are timed, and what a request finds after it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from py_engine.api.objects import plain
from py_engine.config import AppConfig, ModelType
from py_engine.engine import MLCEngine
from py_engine.errors import (
    ConfigValueError,
    IncorrectPipelineLoadedError,
    ModelNotLoadedError,
    OutOfMemoryError,
    RangeError,
)
from py_engine.gpu.rates import measure_rates
from py_engine.gpu.types import AdapterInfo, Binding
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.decoder_memory import working_sizes
from py_engine.models.kernel_costs import KernelCost, kernel_costs, step_of_token
from py_engine.models.profile import profile_step
from py_engine.profile_trace import trace_of
from tests.conformance.fixtures import Fixture, load_fixture, write_model_folder
from tests.conformance.running import load_folder_on_numpy
from tests.support.event_loop import in_clean_event_loop
from tests.support.fake_host import FakeHost
from tests.support.numpy_device import NumpyDevice

FIXTURES = (
    "gqa_tied_q4f16",
    "gpt2_q4f16",
    "mistral_window_24_q0f32",
    "phi4_mini_longrope_q0f16",
    "qwen3_5_grouped_q4f32",
)
GPU = AdapterInfo("acme", "roadrunner", description="Roadrunner 3", subgroup_size_max=4)
MESSAGES = [{"role": "user", "content": "Hi"}]
MICROSECONDS = {"embed": 1, "qkv": 2, "attention": 3, "output": 4, "gate_up": 5, "down": 6}
MICROSECONDS |= {"lm_head": 100, "sample": 10, "combine": 7, "multiply_add": 2000, "read": 4000}


class Clock:
    """Takes so long for each dispatch as its label says; `on_program` acts before each program."""

    def __init__(self, on_program: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self.on_program = on_program

    async def seconds(self, program: Any) -> float:
        if self.on_program is not None:
            await self.on_program(program)
        labels = [each.kernel.spec.label for each in program._dispatches]
        return sum(MICROSECONDS.get(label, 0) for label in labels) / 1e6

    async def copy_seconds(self, source: Any, target: Any) -> float:
        assert source.nbytes == target.nbytes
        return float(source.nbytes) / 10e9


class Host(FakeHost):
    """Loads a fixture's model onto a device in NumPy; `clock` is a scripted one."""

    def __init__(self, folder: Path, info: AdapterInfo | None = None) -> None:
        super().__init__("model")
        self.folder = folder
        self.info = info
        self.clock = Clock()
        self.devices: list[Any] = []

    async def request_device(self, required_features: Any, memory_limit: int | None = None) -> Any:
        self.devices.append(NumpyDevice())
        self.devices[-1].info = self.info or self.devices[-1].info
        return self.devices[-1]

    async def load_model(self, device: Any, *arguments: Any) -> Any:
        return await load_folder_on_numpy(self.folder, device)

    async def profile_step(
        self,
        model: Any,
        n_tokens: int,
        sampling: SamplingParams,
        before_each: Callable[[], None],
    ) -> Any:
        return await profile_step(model, self.clock, n_tokens, sampling, before_each)


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


async def engine_of(host: Host) -> MLCEngine:
    engine = MLCEngine({"app_config": host.app_config}, host=host)
    await engine.reload("model")
    return engine


async def reply_of(engine: MLCEngine) -> str:
    reply = await engine.chat.completions.create(
        messages=MESSAGES, max_tokens=6, temperature=0, seed=1
    )
    return str(reply.choices[0].message.content)


def costs_of(model: Decoder, position: int) -> list[KernelCost]:
    dispatches = step_of_token(model.spec, model.steps)
    return kernel_costs(model.spec, model.steps, dispatches, position)


def test_all_weights_are_read_once_and_of_a_table_one_row(folder: Path) -> None:
    model = asyncio.run(load_folder_on_numpy(folder, NumpyDevice()))
    costs = costs_of(model, 0)
    tables = [cost for cost in costs if cost.kernel.name == "embed"]
    for table in tables:
        assert 0 < table.nbytes <= 4 * model.spec.hidden_size
    read = sum(len(cost.steps) * cost.nbytes for cost in costs if cost not in tables)
    keys_and_values = 2 * sum(cache.shape.slot_bytes for cache in model.steps.caches)
    read -= keys_and_values + 4 * model.vocab_size  # of the first token; and logits

    working = working_sizes(model.spec, model.steps)
    is_tied = model.spec.tied
    held = {
        name: buffer.nbytes
        for name, buffer in model._buffers.items()
        if (name not in working or name.startswith("delta_"))
        and not name.startswith("positions.")
        and (is_tied or not name.startswith("embedding."))
    }
    assert 0 <= sum(held.values()) - read < 16 * len(held)  # buffers are rounded up


def test_keys_grow_with_the_sequence_up_to_the_window() -> None:
    for name in ("gqa_tied_q4f16", "mistral_window_24_q0f32"):
        model = _model(name)
        [short], [long] = (
            [cost for cost in costs_of(model, position) if cost.kernel.label == "attention"]
            for position in (9, 59)
        )
        shape = model.steps.caches[0].shape
        seen = 24 if shape.window else 60
        assert long.nbytes - short.nbytes == 2 * shape.slot_bytes * (seen - 10)
        assert long.operations == 4 * shape.n_heads * shape.head_dim * seen
        assert long.shape == f"{shape.n_heads} heads, {seen} keys"


def test_operations_are_those_of_the_shapes() -> None:
    model = _model("gqa_tied_q4f16")
    costs = {cost.kernel.label: cost for cost in costs_of(model, 7)}
    assert {name: (cost.shape, cost.operations) for name, cost in costs.items()} == {
        "embed": ("", 0),
        "qkv": ("256 x 64", 2 * 256 * 64),
        "attention": ("4 heads, 8 keys", 4 * 4 * 32 * 8),
        "output": ("64 x 128", 2 * 64 * 128),
        "gate_up": ("192 x 64", 2 * 192 * 64),
        "down": ("64 x 96", 2 * 64 * 96),
        "lm_head": ("403 x 64", 2 * 403 * 64),
        "sample": ("", 0),
    }
    # Four bits a weight, an f16 scale for every 32; the norm's f32.
    assert costs["qkv"].nbytes == 256 * 64 // 2 + 2 * 256 * 2 + 4 * 64
    assert costs["sample"].nbytes == 4 * 403
    [delta] = [
        cost
        for cost in costs_of(_model("qwen3_5_grouped_q4f32"), 7)
        if cost.kernel.name == "gated_delta"
    ]
    shape = {name: int(delta.kernel.constants[name]) for name in ("KEY_DIM", "VALUE_DIM")}
    heads = int(delta.kernel.constants["N_VALUE_HEADS"])
    assert delta.shape == f"{heads} heads"
    products = 6 * heads * shape["KEY_DIM"] * shape["VALUE_DIM"]
    assert products < delta.operations < 2 * products


def _model(name: str) -> Decoder:
    import tempfile

    with tempfile.TemporaryDirectory() as target:
        write_model_folder(load_fixture(name), Path(target))
        return asyncio.run(load_folder_on_numpy(Path(target), NumpyDevice()))


def test_sizes_of_bindings() -> None:
    sizes = {"array<vec4u, 3>": 48, "array<vec2u, 3>": 24, "array<f32, 5>": 20, "array<u32, 1>": 4}
    for kind, nbytes in sizes.items():
        assert Binding("x", "read", kind).nbytes == nbytes
    assert Binding("x", "read", "array<vec2u>").nbytes is None
    assert Binding("x", "read", "Sampling").nbytes is None


def test_figures_of_a_profile(llama: Path) -> None:
    async def profile() -> Any:
        engine = await engine_of(Host(llama, GPU))
        return plain(await engine.profile_kernels(n_tokens=40))

    found = asyncio.run(profile())
    assert json.loads(json.dumps(found)) == found
    assert (found["model"], found["adapter"], found["n_tokens"]) == ("model", "Roadrunner 3", 40)
    assert found["has_timestamps"] is False
    kernels = {kernel["kernel"]: kernel for kernel in found["kernels"]}
    counts = {name: kernel["count"] for name, kernel in kernels.items()}
    in_layers = dict.fromkeys(("qkv", "attention", "combine", "output", "gate_up", "down"), 2)
    assert counts == {"embed": 1, **in_layers, "lm_head": 1, "sample": 1}
    for name, kernel in kernels.items():
        assert kernel["seconds"] == pytest.approx(MICROSECONDS[name] / 1e6)
    # All keys are shared out in the first dispatch of two.
    assert kernels["combine"]["nbytes"] == kernels["combine"]["operations"] == 0
    assert found["step_seconds"] == pytest.approx(
        sum(kernel["count"] * kernel["seconds"] for kernel in found["kernels"])
    )
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
    [qkv] = [each for each in asyncio.run(profile()).kernels if each.kernel == "qkv"]
    assert (qkv.seconds, qkv.bandwidth_fraction, qkv.arithmetic_fraction) == (0, 0, 0)


def test_a_trace_has_the_steps_dispatches_one_after_another(folder: Path) -> None:
    async def run() -> tuple[Any, list[str]]:
        host = Host(folder, GPU)
        engine = await engine_of(host)
        profile = await engine.profile_kernels(n_tokens=33)
        model = engine._models.select(None, "test")[1]._text_model
        model.start(SamplingParams(temperature=0))
        await model.prefill([1, 2, 3])
        await model.sample()
        dispatched = host.devices[0].dispatched
        dispatched.clear()
        await model.decode()
        return profile, list(dispatched)

    profile, dispatched = asyncio.run(run())
    trace = trace_of(profile)
    assert trace == trace_of(plain(profile))
    process, thread, *slices = json.loads(json.dumps(trace))["traceEvents"]
    assert process["args"]["name"] == "model on Roadrunner 3"
    assert thread["args"]["name"] == "decode step after 33 tokens"
    assert [each["name"] for each in slices] == dispatched
    assert all(each["ph"] == "X" for each in slices)
    ends = [0.0, *(each["ts"] + each["dur"] for each in slices)]
    assert [each["ts"] for each in slices] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(1e6 * profile.step_seconds)
    layers = [each["args"].get("layer") for each in slices]
    in_layers = [layer for layer in layers if layer is not None]
    assert in_layers == sorted(in_layers)
    assert layers[-1] is layers[-2] is layers[0] is None
    n_layers = max(in_layers) + 1
    assert set(in_layers) == set(range(n_layers))
    parts = Counter(each["name"] for each in slices if each["args"].get("layer") == 0)
    assert sum(parts.values()) >= 5


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
