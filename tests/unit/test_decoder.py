"""The decoder's programs and what it does with memory, on the NumPy device."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import (
    ContextWindowSizeExceededError,
    LimitSupportError,
    ShaderCompilationError,
)
from py_engine.gpu.types import AdapterInfo, Limits
from py_engine.models.base import LoadProgress, SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.support.numpy_device import NumpyDevice

FIXTURE = load_fixture("gqa_tied_q4f16")

GPU = AdapterInfo("acme", "roadrunner")
"""Compiles while weights load, which adapters on the CPU do only afterwards."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_model_folder(FIXTURE, path)
    return path


def load(
    device: NumpyDevice, folder: Path, progress: list[LoadProgress] | None = None, **opts: Any
) -> Decoder:
    async def run() -> Decoder:
        source = FolderSource(folder)
        checkpoint = await open_checkpoint(source)
        config = ChatConfig.from_json(checkpoint.config_json, chat_opts=opts)
        return await load_model(
            device, checkpoint, config, [].append if progress is None else progress.append
        )

    return asyncio.run(run())


def run_step(
    model: Decoder, device: NumpyDevice, sampling: SamplingParams | None = None
) -> dict[str, list[str]]:
    """Prefill, sample and decode once; return what each of them dispatched."""
    ran: dict[str, list[str]] = {}

    async def run() -> None:
        model.start(sampling or SamplingParams())
        for name, step in (
            (
                "prefill",
                lambda: model.prefill(FIXTURE.prompt_ids[: min(5, model.prefill_chunk_size)]),
            ),
            ("sample", model.sample),
            ("decode", model.decode),
        ):
            device.dispatched.clear()
            await step()
            ran[name] = list(device.dispatched)

    asyncio.run(run())
    return ran


@pytest.mark.parametrize("name", ["gqa_tied_q4f16", "qwen2_tied_q4f16", "qwen3_tied_q4f16"])
def test_five_dispatches_a_layer_and_three(name: str, tmp_path: Path) -> None:
    device = NumpyDevice()
    write_model_folder(load_fixture(name), tmp_path)
    model = load(device, tmp_path)
    ran = run_step(model, device)
    layer = ["qkv", "attention", "output", "gate_up", "down"]
    assert len(ran["prefill"]) == 1 + 8 * model.spec.n_layers
    assert ran["sample"] == ["prefill last row", "lm_head", "sample"]
    assert ran["decode"] == ["embed", *layer * model.spec.n_layers, "lm_head", "sample"]


@pytest.mark.parametrize(
    ("name", "layer", "n_prefill"),
    [
        (
            "gemma2_q4f16",
            ["qkv", "attention", "output", "post_attention_norm", "gate_up", "down",
             "post_mlp_norm"],
            10,
        ),
        (
            "olmo2_untied_q4f16",
            ["qkv", "attention", "output", "post_attention_norm", "gate_up", "down",
             "post_mlp_norm"],
            8,
        ),
        # Side by side; both read one norm's rows in prefill.
        ("phi_q4f16", ["qkv", "up", "attention", "output", "down"], 7),
        ("gpt_neox_parallel_q4f16", ["qkv", "up", "attention", "output", "down"], 8),
    ],
)  # fmt: skip
def test_dispatches_of_other_blocks(
    name: str, layer: list[str], n_prefill: int, tmp_path: Path
) -> None:
    device = NumpyDevice()
    write_model_folder(load_fixture(name), tmp_path)
    model = load(device, tmp_path)
    ran = run_step(model, device)
    assert len(ran["prefill"]) == 1 + n_prefill * model.spec.n_layers
    assert ran["decode"] == ["embed", *layer * model.spec.n_layers, "lm_head", "sample"]


def test_heads_lie_in_several_caches_where_one_would_be_too_large(tmp_path: Path) -> None:
    fixture = load_fixture("qwen2_tied_q4f16")
    write_model_folder(fixture, tmp_path)
    device = NumpyDevice()
    model = load(device, tmp_path)
    whole = run_step(model, device)
    one_head = model.spec.attention(model.spec.layers[0]).cache_bytes // 2
    device = NumpyDevice()
    device.limits = Limits(max_storage_buffer_binding_size=one_head)
    model = load(device, tmp_path, prefill_chunk_size=3)

    async def greedy() -> list[int]:
        model.start(SamplingParams(temperature=0))
        for start in range(0, len(fixture.prompt_ids), model.prefill_chunk_size):
            await model.prefill(fixture.prompt_ids[start : start + model.prefill_chunk_size])
        await model.reserve(len(fixture.greedy_ids))
        draws = [await model.sample(), *[await model.decode() for _ in fixture.greedy_ids[1:]]]
        return [draw.token_id for draw in draws]

    assert asyncio.run(greedy()) == fixture.greedy_ids
    assert {b.label for b in device.buffers if b.label.startswith("k_cache 1")} == {
        "k_cache 1.0",
        "k_cache 1.1",
    }
    split = run_step(model, device)
    assert split["decode"].count("attention") == 2 * whole["decode"].count("attention")


def test_a_model_that_may_compute_again_remembers_its_tokens(tmp_path: Path) -> None:
    device = NumpyDevice()
    write_model_folder(load_fixture("phi3_longrope_crossed_q4f16"), tmp_path)
    ran = run_step(load(device, tmp_path), device)
    assert ran["decode"][:3] == ["remember", "embed", "qkv"]


@pytest.mark.parametrize(
    ("sampling", "draw"),
    [
        (SamplingParams(temperature=0.7, top_p=0.9, top_k=5, min_p=0.1), ["sample"]),
        (SamplingParams(logit_bias={3: 1.0}), ["adjust", "sample"]),
        (SamplingParams(presence_penalty=-1.0), ["adjust", "sample"]),
        (SamplingParams(frequency_penalty=0.1), ["adjust", "sample"]),
        (SamplingParams(repetition_penalty=1.1), ["adjust", "sample"]),
        (SamplingParams(top_logprobs=0), ["sample", "logprobs"]),
        (
            SamplingParams(repetition_penalty=0.9, top_logprobs=2),
            ["adjust", "sample", "logprobs"],
        ),
    ],
)
def test_a_draw_dispatches_only_what_is_asked_for(
    folder: Path, sampling: SamplingParams, draw: list[str]
) -> None:
    device = NumpyDevice()
    model = load(device, folder)
    ran = run_step(model, device, sampling)
    assert ran["sample"] == ["prefill last row", "lm_head", *draw]
    assert ran["decode"][-1 - len(draw) :] == ["lm_head", *draw]
    ran = run_step(model, device)
    assert ran["decode"][-2:] == ["lm_head", "sample"]


def test_progress_counts_bytes_and_pipelines(folder: Path) -> None:
    progress: list[LoadProgress] = []
    load(NumpyDevice(), folder, progress)
    last = {report.phase: report for report in progress}
    assert last["weights"].done == last["weights"].total > 0
    assert last["kernels"].done == last["kernels"].total > 0


def test_a_full_context_is_an_error_and_a_new_start_works(folder: Path) -> None:
    model = load(NumpyDevice(), folder, context_window_size=8, prefill_chunk_size=8)

    async def run() -> int:
        model.start(SamplingParams(temperature=0))
        await model.prefill(FIXTURE.prompt_ids[:7])
        await model.sample()
        await model.decode()
        with pytest.raises(ContextWindowSizeExceededError, match="context_window_size 8"):
            model.decode()
        with pytest.raises(ContextWindowSizeExceededError, match=r"8 tokens .* 2 more"):
            await model.prefill([1, 2])
        model.start(SamplingParams(temperature=0))
        await model.prefill(FIXTURE.prompt_ids[:8])
        return (await model.sample()).token_id

    assert 0 <= asyncio.run(run()) < model.vocab_size


def test_seeds_repeat_and_differ(folder: Path) -> None:
    model = load(NumpyDevice(), folder)

    async def draw(seed: int) -> list[int]:
        model.start(SamplingParams(temperature=2.0, seed=seed))
        await model.prefill(FIXTURE.prompt_ids[: min(5, model.prefill_chunk_size)])
        draws = [await model.sample(), *[await model.decode() for _ in range(7)]]
        return [drawn.token_id for drawn in draws]

    first, second, other = (asyncio.run(draw(seed)) for seed in (7, 7, 1 << 40 | 7))
    assert first == second
    assert first != other


def test_nothing_stays_after_an_allocation_that_fails(folder: Path) -> None:
    class Small(NumpyDevice):
        def create_buffer(self, nbytes: int, label: str) -> Any:
            if label == "v_cache 1.0":
                raise LimitSupportError("too large")
            return super().create_buffer(nbytes, label)

    device = Small()
    with pytest.raises(LimitSupportError):
        load(device, folder)
    assert device.live_buffers == []


def test_nothing_stays_after_a_kernel_that_does_not_compile(folder: Path) -> None:
    class Broken(NumpyDevice):
        async def wait_compiled(self, kernels: Any) -> None:
            if any(kernel.spec.name == "sample" for kernel in kernels):
                raise ShaderCompilationError("broken")

    device = Broken()
    device.info = GPU
    with pytest.raises(ShaderCompilationError):
        load(device, folder)
    assert device.live_buffers == []


def test_a_kernel_that_does_not_compile_ends_the_download(folder: Path) -> None:
    class Endless(FolderSource):
        async def read_bytes(self, path: str, on_bytes: Any = None) -> Any:
            if path.endswith(".bin"):
                await asyncio.Event().wait()
            return await super().read_bytes(path, on_bytes)

    class Broken(NumpyDevice):
        async def wait_compiled(self, kernels: Any) -> None:
            await asyncio.sleep(0)
            if any(kernel.spec.name == "sample" for kernel in kernels):
                raise ShaderCompilationError("broken")

    async def run() -> None:
        source, device = Endless(folder), Broken()
        device.info = GPU
        checkpoint = await open_checkpoint(source)
        config = ChatConfig.from_json(checkpoint.config_json)
        with pytest.raises(ShaderCompilationError):
            await asyncio.wait_for(load_model(device, checkpoint, config, lambda progress: None), 5)
        assert device.live_buffers == []

    asyncio.run(run())


def test_destroy_frees_everything(folder: Path) -> None:
    device = NumpyDevice()
    load(device, folder).destroy()
    assert device.live_buffers == []


def test_padding_of_the_vocabulary_has_no_logits(folder: Path) -> None:
    """Rows that round the vocabulary up are not trained: their logits could be any number."""

    async def logits(model: Decoder) -> list[float]:
        model.start(SamplingParams())
        await model.prefill(FIXTURE.prompt_ids[: min(5, model.prefill_chunk_size)])
        model.first_logits()
        return (await model.read_logits()).tolist()

    whole = load(NumpyDevice(), folder)
    active = whole.spec.vocab_size - 3
    cut = load(NumpyDevice(), folder, active_vocab_size=active)
    assert cut.vocab_size == active
    assert asyncio.run(logits(cut)) == asyncio.run(logits(whole))[:active]
