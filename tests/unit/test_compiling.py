"""Kernels that compile longer than a model loads, on a NumPy device that compiles when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import ShaderCompilationError
from py_engine.gpu.types import AdapterInfo, Buffer, Kernel, KernelSpec
from py_engine.models.base import LoadProgress, SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.encoder_loader import load_embedder
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.encoder_fixtures import load_encoder_fixture, write_encoder_folder
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.support.numpy_device import NumpyDevice

FIXTURE = load_fixture("gqa_tied_q4f16")
PROMPT = FIXTURE.prompt_ids[:5]


class Slow(NumpyDevice):
    """Compiles nothing before `finish`, but what weights need."""

    def __init__(self, info: AdapterInfo | None = None) -> None:
        super().__init__()
        self.info = info or self.info
        self.begun: list[str] = []
        self.weights: list[str] = []
        self._compiling: dict[str, asyncio.Future[None]] = {}
        self._reports: list[Callable[[], None]] = []

    def begin_compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Kernel]:
        for spec in specs:
            future = self._compiling.setdefault(
                spec.source, asyncio.get_running_loop().create_future()
            )
            if spec.name == "relay":
                future.set_result(None)
            else:
                self.begun.append(spec.label)
        if on_progress is not None:
            report, n = on_progress, len(specs)
            self._reports.append(lambda: report(n, n))
        return super().begin_compile(specs)

    def write_buffer(self, buffer: Buffer, offset: int, data: Any, *more: Any) -> None:
        if buffer.label.endswith((".weights", ".scales")):
            self.weights.append(buffer.label)
        super().write_buffer(buffer, offset, data, *more)

    async def wait_compiled(self, kernels: Iterable[Kernel]) -> None:
        for kernel in kernels:
            await asyncio.shield(self._compiling[kernel.spec.source])

    def finish(self, sources: Iterable[str], error: str = "") -> None:
        for source in sources:
            future = self._compiling[source]
            if error:
                future.set_exception(ShaderCompilationError(error))
            else:
                future.set_result(None)
        for report in self._reports:
            report()

    @property
    def pending(self) -> set[str]:
        return {source for source, future in self._compiling.items() if not future.done()}


async def load(device: NumpyDevice, folder: Path, progress: list[LoadProgress]) -> Decoder:
    write_model_folder(FIXTURE, folder)
    checkpoint = await open_checkpoint(FolderSource(folder))
    config = ChatConfig.from_json(checkpoint.config_json)
    model = await load_model(device, checkpoint, config, progress.append)
    model.start(SamplingParams(temperature=0))
    device.dispatched.clear()
    return model


def sources(specs: Iterable[KernelSpec]) -> set[str]:
    return {spec.source for spec in specs}


async def is_waiting(task: asyncio.Future[None]) -> bool:
    await asyncio.wait([task], timeout=0.01)
    return not task.done()


def test_a_prompt_waits_for_its_kernels_and_a_step_for_all(tmp_path: Path) -> None:
    async def run() -> list[int]:
        device, progress = Slow(), list[LoadProgress]()
        model = await load(device, tmp_path, progress)
        assert device.pending and progress[-1].phase == "weights"
        reports = len(progress)
        of_decode = sources(model.steps.kernels_of_decode)
        assert of_decode and of_decode < device.pending

        prefill = asyncio.ensure_future(model.prefill(PROMPT))
        assert await is_waiting(prefill) and not device.dispatched
        device.finish(device.pending - of_decode)
        await prefill
        first = (await model.sample()).token_id

        reserve = asyncio.ensure_future(model.reserve(1))
        assert await is_waiting(reserve)
        device.finish(of_decode)
        await reserve
        assert len(progress) == reports, "nothing is told of a load that is over"
        return [first, (await model.decode()).token_id]

    async def at_once() -> list[int]:
        model = await load(NumpyDevice(), tmp_path, [])
        await model.prefill(PROMPT)
        return [(await model.sample()).token_id, (await model.decode()).token_id]

    assert asyncio.run(run()) == asyncio.run(at_once())


def test_those_of_a_prompt_compile_first(tmp_path: Path) -> None:
    async def run() -> None:
        device = Slow(AdapterInfo("acme", "roadrunner"))
        model = await load(device, tmp_path, [])
        of_decode = {spec.label for spec in model.steps.kernels_of_decode}
        of_layers = [spec.label for spec in model.steps.kernels_of_layers]
        assert device.begun[: len(of_layers)] == of_layers
        assert set(device.begun[-len(of_decode) :]) == of_decode

    asyncio.run(run())


class Vocabulary:
    """A tokenizer that notes how many weights there were when it was first asked for."""

    def __init__(self, device: Slow) -> None:
        self._device = device
        self.n_weights: list[int] = []

    async def vocab_size(self) -> int:
        self.n_weights.append(len(self._device.weights))
        return 1 << 20

    async def token_ids(self, text: str) -> list[int]:
        raise AssertionError("only the gate of int8 activations, which is closed here, encodes")


class LateSource(FolderSource):
    """A network on which weights come after a while."""

    delay_s = 0.0

    async def read_range(self, path: str, begin: int, end: int, *more: Any) -> bytes:
        await asyncio.sleep(self.delay_s)
        return await super().read_range(path, begin, end, *more)


@pytest.mark.parametrize("delay_s", [0.0, 0.7])
def test_a_tokenizer_loads_when_weights_flow_or_take_long(tmp_path: Path, delay_s: float) -> None:
    async def run() -> list[int]:
        device, source = Slow(), LateSource(tmp_path)
        vocabulary = Vocabulary(device)
        write_model_folder(FIXTURE, tmp_path)
        checkpoint = await open_checkpoint(source)
        config = ChatConfig.from_json(checkpoint.config_json)
        source.delay_s = delay_s
        await load_model(device, checkpoint, config, lambda report: None, tokenizer=vocabulary)
        return vocabulary.n_weights

    [n_weights] = asyncio.run(run())
    assert (n_weights > 0) == (delay_s == 0)


def test_an_adapter_on_the_cpu_compiles_when_weights_are_there(tmp_path: Path) -> None:
    """It has but the cores that load the weights."""

    async def n_weights(device: Slow) -> tuple[int, int]:
        done: list[int] = []
        begin = device.begin_compile

        def begin_compile(specs: Sequence[KernelSpec], *more: Any) -> list[Kernel]:
            if specs[0].name != "relay":
                done.append(len(device.weights))
            return begin(specs, *more)

        device.begin_compile = begin_compile  # type: ignore[method-assign]
        await load(device, tmp_path, [])
        return min(done), len(device.weights)

    on_cpu, on_gpu = Slow(), Slow(AdapterInfo("acme", "roadrunner"))
    first, last = asyncio.run(n_weights(on_cpu))
    assert first == last > 0
    first, last = asyncio.run(n_weights(on_gpu))
    assert first < last


def test_a_kernel_that_does_not_compile_fails_every_prompt(tmp_path: Path) -> None:
    async def run() -> None:
        device = Slow()
        model = await load(device, tmp_path, [])
        prefill = asyncio.ensure_future(model.prefill(PROMPT))
        assert await is_waiting(prefill)
        device.finish(device.pending, "broken")
        for prompt in (prefill, model.prefill(PROMPT), model.reserve(1)):
            with pytest.raises(ShaderCompilationError, match="broken"):
                await prompt
        model.destroy()
        assert device.live_buffers == []

    asyncio.run(run())


def test_a_prompt_that_is_cancelled_leaves_the_kernels_to_the_next(tmp_path: Path) -> None:
    async def run() -> bool:
        device = Slow()
        model = await load(device, tmp_path, [])
        prefill = asyncio.ensure_future(model.prefill(PROMPT))
        assert await is_waiting(prefill)
        prefill.cancel()
        await asyncio.gather(prefill, return_exceptions=True)
        assert prefill.cancelled()
        device.finish(device.pending)
        await model.prefill(PROMPT)
        return 0 <= (await model.sample()).token_id < model.vocab_size

    assert asyncio.run(run())


def test_texts_wait_for_the_kernels_of_an_encoder(tmp_path: Path) -> None:
    async def run() -> None:
        write_encoder_folder(load_encoder_fixture("bert_odd_heads_q4f16").case, tmp_path)
        checkpoint = await open_checkpoint(FolderSource(tmp_path))
        config = ChatConfig.from_json(checkpoint.config_json)
        device = Slow()
        model = await load_embedder(device, checkpoint, config, lambda progress: None)
        device.dispatched.clear()
        embedding = asyncio.ensure_future(model.embed([[1, 2]]))
        await asyncio.wait([embedding], timeout=0.01)
        assert not embedding.done() and not device.dispatched
        device.finish(device.pending)
        [vector] = await embedding
        assert len(vector) == model.hidden_size

    asyncio.run(run())
