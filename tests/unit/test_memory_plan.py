"""What a model will take on the GPU, and what happens where it is too much."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from py_engine.config import CHAT_CONFIG_FILE, ChatConfig
from py_engine.errors import OutOfMemoryError
from py_engine.gpu.memory import default_memory_limit, free_memory
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.encoder_loader import load_embedder
from py_engine.models.loader import load_model
from py_engine.models.memory_plan import MemoryPlan, require_memory_for
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.encoder_fixtures import load_encoder_fixture, write_encoder_folder
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.support.numpy_device import NumpyDevice

FIXTURE = load_fixture("gqa_tied_q4f16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_model_folder(FIXTURE, path)
    return path


@pytest.fixture(scope="module")
def long_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model with a context so long that its caches grow."""
    path = tmp_path_factory.mktemp("long")
    shutil.copytree(folder, path, dirs_exist_ok=True)
    config = json.loads((path / CHAT_CONFIG_FILE).read_text())
    for fields in (config, config["model_config"]):
        fields["context_window_size"] = 1 << 20
    (path / CHAT_CONFIG_FILE).write_text(json.dumps(config))
    return path


def load(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int | None = None,
    source: FolderSource | None = None,
    **opts: Any,
) -> tuple[Decoder, NumpyDevice, MemoryPlan]:
    """Load a model; return it with its device and the plan that was made before."""
    device, plans = NumpyDevice(), []
    device.memory_limit = limit

    def remember(plan: MemoryPlan, device: Any) -> None:
        plans.append(plan)
        require_memory_for(plan, device)

    monkeypatch.setattr("py_engine.models.loader.require_memory_for", remember)

    async def run() -> Decoder:
        checkpoint = await open_checkpoint(source or FolderSource(folder))
        config = ChatConfig.from_json(checkpoint.config_json, chat_opts=opts)
        return await load_model(device, checkpoint, config, lambda progress: None)

    return asyncio.run(run()), device, plans[0]


FAMILIES = (
    "gqa_tied_q4f16",
    "qwen3_untied_q4f32",
    "gemma2_q4f16",
    "gpt2_q4f16",
    "mistral_window_24_q0f32",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_plan_is_what_is_allocated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model_folder(load_fixture(name), tmp_path)
    model, device, plan = load(tmp_path, monkeypatch)
    rounding = 16 * device.memory.n_buffers
    assert plan.at_first <= device.memory.nbytes <= plan.at_first + rounding

    async def fill() -> None:
        model.start(SamplingParams())
        await model.reserve(plan.context_window_size)

    asyncio.run(fill())
    assert plan.in_full <= device.memory.nbytes <= plan.in_full + rounding
    model.destroy()
    assert device.memory.nbytes == 0


def test_the_plan_of_an_encoder_is_what_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_encoder_folder(load_encoder_fixture("bert_text_q4f16").case, tmp_path)
    device, plans = NumpyDevice(), []
    monkeypatch.setattr(
        "py_engine.models.encoder_loader.require_memory_for", lambda plan, _: plans.append(plan)
    )

    async def run() -> None:
        checkpoint = await open_checkpoint(FolderSource(tmp_path))
        config = ChatConfig.from_json(checkpoint.config_json)
        await load_embedder(device, checkpoint, config, lambda progress: None)

    asyncio.run(run())
    rounding = 16 * device.memory.n_buffers
    assert plans[0].at_first <= device.memory.nbytes <= plans[0].at_first + rounding
    assert plans[0].in_full == plans[0].at_first


def test_a_model_that_cannot_start_is_refused_before_its_download(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, plan = load(folder, monkeypatch)

    class Watched(FolderSource):
        async def read_range(self, path: str, *args: Any, **options: Any) -> Any:
            raise AssertionError(f"{path} was fetched")

    limit = plan.weights + plan.working + plan.cache(100)
    with pytest.raises(OutOfMemoryError, match="context_window_size to at most 100 in chat_opts"):
        load(folder, monkeypatch, limit, Watched(folder))
    with pytest.raises(OutOfMemoryError) as caught:
        load(folder, monkeypatch, plan.weights // 2, Watched(folder))
    text = str(caught.value)
    assert "Choose a smaller model, or raise gpuMemoryLimitMB" in text
    assert "context_window_size" not in text and "4 bits" not in text


def test_a_model_that_fits_with_a_smaller_context_loads_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, plan = load(folder, monkeypatch)
    limit = plan.weights + plan.working + plan.cache(100) + 16 * 100
    model, device, _ = load(folder, monkeypatch, limit, context_window_size=100)
    assert model.context_window_size == 100 and device.memory.nbytes <= limit


def test_plain_weights_may_load_in_four_bits_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model_folder(load_fixture("mha_tied_q0f32"), tmp_path)
    _, _, plan = load(tmp_path, monkeypatch)
    with pytest.raises(OutOfMemoryError, match=r'Load it in 4 bits \(quantization "q4f16_1"'):
        load(tmp_path, monkeypatch, plan.weights // 2)


def test_a_context_that_does_not_fit_in_full_is_warned_about(
    long_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, device, plan = load(long_folder, monkeypatch)
    limit = device.memory.nbytes + (4 << 20)
    assert plan.at_first < limit < plan.in_full
    with caplog.at_level(logging.WARNING):
        model, device, _ = load(long_folder, monkeypatch, limit)
    assert f"of the {1 << 20} tokens of the context window" in caplog.text

    async def grow() -> None:
        model.start(SamplingParams())
        with pytest.raises(OutOfMemoryError, match="are free"):
            await model.reserve(1 << 20)
        await model.prefill(FIXTURE.prompt_ids[:5])
        await model.sample()

    asyncio.run(grow())
    assert device.memory.nbytes <= limit


def test_other_models_count(folder: Path) -> None:
    device = NumpyDevice()
    device.memory_limit = 1000
    device.create_buffer(512, "another model")
    assert free_memory(device) == 488
    require_memory_for(MemoryPlan(weights=400, working=88), device)
    with pytest.raises(OutOfMemoryError, match="Load it without the other models, choose"):
        require_memory_for(MemoryPlan(weights=400, working=89), device)


@pytest.mark.parametrize(
    ("told", "limit"), [(None, None), (8, None), (32, None), (4, 4 << 30), (0.5, 1 << 29)]
)
def test_little_memory_is_a_limit(told: float | None, limit: int | None) -> None:
    assert default_memory_limit(told) == limit
