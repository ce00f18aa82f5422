"""Several models in one engine: one device, turns of their own, memory that they share."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from py_engine.config import AppConfig, ModelRecord, ModelType
from py_engine.engine import MLCEngine
from py_engine.errors import ModelNotLoadedError, OutOfMemoryError
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.models.encoder_loader import load_embedder, plan_embedder_load
from py_engine.models.memory_plan import MemoryPlan
from py_engine.storage.folder import FolderSource
from tests.conformance.encoder_fixtures import load_encoder_fixture, write_encoder_folder
from tests.conformance.encoder_recipe import TEXT_CASE
from tests.support.fake_host import END, FakeHost
from tests.support.numpy_device import NumpyDevice

MESSAGES = [{"role": "user", "content": "Hi"}]
WORDS = list(range(300, 320))


def host_of(*model_ids: str) -> FakeHost:
    host = FakeHost(*model_ids)
    host.scripts = {model_id: [*WORDS, END] for model_id in host.files}
    return host


async def engine_of(host: FakeHost, *load: str, **config: Any) -> MLCEngine:
    engine = MLCEngine({"app_config": host.app_config, **config}, host=host)
    await engine.reload(list(load))
    return engine


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


# Turns


def test_streams_of_two_models_interleave() -> None:
    async def test() -> None:
        engine = await engine_of(host_of("a", "b"), "a", "b")
        came: list[str] = []

        async def read(model_id: str) -> None:
            nonlocal came
            async for chunk in await engine.chat.completions.create(
                model=model_id, messages=MESSAGES, stream=True
            ):
                came += [chunk.model]

        await asyncio.gather(read("a"), read("b"))
        turns = sum(one != next_one for one, next_one in pairwise(came))
        assert turns > len(WORDS)

    run(test)


def test_each_model_has_a_queue_of_its_own_and_keeps_its_order() -> None:
    async def test() -> None:
        host = host_of("a", "b")
        engine = await engine_of(host, "a", "b")
        gate = host.loaded[0].gate = asyncio.Event()
        done: list[str] = []

        async def ask(name: str) -> None:
            await engine.chat.completions.create(model=name[0], messages=MESSAGES, max_tokens=3)
            done.append(name)

        asked = [asyncio.ensure_future(ask(name)) for name in ("a1", "b1", "a2", "b2", "a3")]
        await asyncio.wait([asked[1], asked[3]])
        assert done == ["b1", "b2"]
        gate.set()
        await asyncio.gather(*asked)
        assert done == ["b1", "b2", "a1", "a2", "a3"]

    run(test)


def test_a_failing_request_of_one_model_leaves_the_reply_of_another_alone() -> None:
    async def test() -> None:
        host = host_of("a", "b")
        engine = await engine_of(host, "a", "b")
        host.loaded[0].fail_at = {2: OutOfMemoryError("the cache did not grow")}
        failing, fine = await asyncio.gather(
            *(engine.chat.completions.create(model=name, messages=MESSAGES) for name in "ab"),
            return_exceptions=True,
        )
        assert isinstance(failing, OutOfMemoryError)
        assert fine.choices[0].finish_reason == "stop"
        assert engine.model_id == ["a", "b"]

    run(test)


@pytest.mark.parametrize("by", ["interrupt", "unload"])
def test_what_ends_all_ends_the_replies_of_all(by: str) -> None:
    async def test() -> None:
        host = host_of("a", "b")
        engine = await engine_of(host, "a", "b")
        for model in host.loaded:
            model.script = WORDS * 1000
        requests = [
            asyncio.ensure_future(engine.chat.completions.create(model=name, messages=MESSAGES))
            for name in "ab"
        ]
        while not all(model.tokens_drawn for model in host.loaded):
            await asyncio.sleep(0)
        if by == "interrupt":
            engine.interrupt_generate()
            replies = await asyncio.gather(*requests)
            assert [reply.choices[0].finish_reason for reply in replies] == ["abort", "abort"]
        else:
            await engine.unload()
            errors = await asyncio.gather(*requests, return_exceptions=True)
            assert [type(error) for error in errors] == [ModelNotLoadedError] * 2
            assert all(model.is_destroyed for model in host.loaded)

    run(test)


def test_a_language_and_an_embedding_model_work_at_once_on_one_device() -> None:
    async def test() -> None:
        host = host_of("chat", "vectors")
        chat, vectors = host.app_config.model_list
        records = (chat, replace(vectors, model_type=ModelType.embedding))
        engine = MLCEngine({"app_config": AppConfig(records)}, host=host)
        await engine.reload(["chat", "vectors"])
        gate = host.loaded[0].gate = asyncio.Event()
        reply = asyncio.ensure_future(
            engine.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=2)
        )
        found = await engine.embeddings.create(model="vectors", input="The quick brown fox")
        assert len(found.data) == 1 and not reply.done()
        gate.set()
        assert (await reply).model == "chat"
        assert len(host.devices) == 1

    run(test)


# Memory


class NumpyHost(FakeHost):
    """Loads the embedding models of `folders` onto a device in NumPy."""

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__(*folders)
        self.folders = folders
        self.devices: list[Any] = []
        self.loads: list[str] = []

    async def open_source(self, record: ModelRecord, app_config: AppConfig) -> Any:
        return FolderSource(self.folders[record.model_id])

    async def request_device(self, required_features: Any, memory_limit: int | None = None) -> Any:
        self.devices.append(NumpyDevice())
        self.devices[-1].memory_limit = memory_limit
        return self.devices[-1]

    async def plan_memory(self, device: Any, checkpoint: Any, config: Any) -> MemoryPlan:
        return plan_embedder_load(device, checkpoint, config)[2]

    async def load_embedder(self, device: Any, checkpoint: Any, *arguments: Any) -> Any:
        self.loads.append(Path(checkpoint.source.url).name)
        return await load_embedder(device, checkpoint, *arguments)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders of one embedding model."""
    root, case = tmp_path_factory.mktemp("models"), load_encoder_fixture(TEXT_CASE).case
    for name in ("first", "second"):
        write_encoder_folder(case, root / name)
    return {name: root / name for name in ("first", "second")}


def limited(host: FakeHost, nbytes: int | None) -> AppConfig:
    """Return the host's records with a limit of bytes, None for no limit."""
    return replace(host.app_config, gpuMemoryLimitMB=None if nbytes is None else nbytes / 1e6)


async def loaded(host: NumpyHost, *load: str, limit: int | None = None) -> MLCEngine:
    engine = MLCEngine({"app_config": limited(host, limit)}, host=host)
    await engine.reload(list(load))
    return engine


async def bytes_of_one(folders: dict[str, Path]) -> int:
    return int((await (await loaded(NumpyHost(folders), "first")).get_gpu_memory()).nbytes)


def test_models_that_do_not_fit_together_are_refused_before_the_first_is_fetched(
    folders: dict[str, Path],
) -> None:
    async def test() -> None:
        one = await bytes_of_one(folders)
        host = NumpyHost(folders)
        engine = await loaded(host, "second", limit=one * 3 // 2)
        host.loads.clear()
        with pytest.raises(OutOfMemoryError) as caught:
            await engine.reload(["first", "second"])
        megabytes = f"{one / 1e6:.1f} MB"
        assert f"(first {megabytes}, second {megabytes})" in str(caught.value)
        assert "Load fewer of them at a time" in str(caught.value)
        assert "gpuMemoryLimitMB" in str(caught.value)
        assert host.loads == [] and engine.model_id is None
        assert all(device.live_buffers == [] for device in host.devices)
        await engine.reload("first")
        assert (await engine.embeddings.create(input="fox")).model == "first"

    run(test)


def test_models_that_fit_together_share_the_limit(folders: dict[str, Path]) -> None:
    async def test() -> None:
        one = await bytes_of_one(folders)
        engine = await loaded(NumpyHost(folders), "first", "second", limit=2 * one + 1000)
        memory = await engine.get_gpu_memory()
        assert memory.nbytes == 2 * one and memory.limit_bytes == 2 * one + 1000

    run(test)


def test_full_contexts_that_do_not_fit_together_are_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class GrowingHost(FakeHost):
        async def plan_memory(self, *arguments: Any) -> MemoryPlan:
            shape = AttentionShape(4, 2, 64, 1 << 16)
            return MemoryPlan(10_000, 1000, [shape], context_window_size=1 << 16)

    async def test() -> None:
        host = GrowingHost("a", "b")
        engine = MLCEngine({"app_config": limited(host, 40_000_000)}, host=host)
        await engine.reload(["a", "b"])

    with caplog.at_level(logging.WARNING):
        run(test)
    assert "With full context windows the models would take 67.1 MB" in caplog.text
    assert "(a 33.6 MB, b 33.6 MB), but 40.0 MB are free" in caplog.text


def test_a_second_model_that_the_gpu_refuses_is_named_with_the_first() -> None:
    async def test() -> None:
        host = host_of("first", "second")
        engine = await engine_of(host, "second")

        def refuse_the_second(_config: Any) -> None:
            if len(host.loaded) == 2:
                raise OutOfMemoryError("The GPU refused. Choose a smaller model.")

        host.before_load = refuse_the_second
        with pytest.raises(OutOfMemoryError) as caught:
            await engine.reload(["first", "second"])
        assert str(caught.value).startswith("second: The GPU refused. Choose a smaller model.")
        assert "(first, loaded before it, take" in str(caught.value)
        assert engine.model_id is None
        assert all(model.is_destroyed for model in host.loaded)
        assert all(device.is_destroyed for device in host.devices)
        host.before_load = None
        await engine.reload(["first", "second"])
        reply = await engine.chat.completions.create(model="second", messages=MESSAGES)
        assert reply.usage.completion_tokens == len(WORDS) + 1

    run(test)
