"""What a model will take is known from its configuration alone, as exactly as from its files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from py_engine.config import ChatConfig
from py_engine.errors import LimitSupportError, UnknownQuantizationError
from py_engine.gpu.types import Limits
from py_engine.models.encoder_loader import load_embedder
from py_engine.models.loader import load_model
from py_engine.models.memory_estimate import estimate_memory
from py_engine.models.memory_plan import MemoryPlan
from py_engine.storage.folder import FolderSource
from py_engine.weights.checkpoint import open_checkpoint
from py_engine.weights.formats import MLC_FORMATS
from tests.conformance.encoder_fixtures import (
    encoder_names,
    load_encoder_fixture,
    write_encoder_folder,
)
from tests.conformance.fixtures import (
    Dtype,
    fixture_names,
    load_fixture,
    write_hf_folder,
    write_mlc_folder,
    write_model_folder,
)
from tests.conformance.recipe import make_weights
from tests.support.numpy_device import NumpyDevice

SMALL = Limits(max_storage_buffer_binding_size=1 << 13, max_buffer_size=1 << 14)


class Planned(Exception):
    """Ends a load when its plan is made."""


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[MemoryPlan]:
    """Return the list that loads put their plans in, before they end."""
    found: list[MemoryPlan] = []

    def end(plan: MemoryPlan, device: Any) -> None:
        found.append(plan)
        raise Planned

    for module in ("loader", "encoder_loader"):
        monkeypatch.setattr(f"py_engine.models.{module}.require_memory_for", end)
    return found


def read_config(folder: Path, **opts: Any) -> ChatConfig:
    async def read() -> ChatConfig:
        checkpoint = await open_checkpoint(FolderSource(folder))
        return ChatConfig.from_json(checkpoint.config_json, chat_opts=opts)

    return asyncio.run(read())


def plan_load(
    load: Any, folder: Path, plans: list[MemoryPlan], limits: Limits | None = None, **opts: Any
) -> MemoryPlan:
    """Return the plan that loading makes from the files."""
    device = NumpyDevice()
    device.limits = limits or device.limits

    async def run() -> None:
        checkpoint = await open_checkpoint(FolderSource(folder))
        config = ChatConfig.from_json(checkpoint.config_json, chat_opts=opts)
        with pytest.raises(Planned):
            await load(device, checkpoint, config, lambda progress: None)

    asyncio.run(run())
    return plans.pop()


@pytest.mark.parametrize("name", fixture_names())
def test_estimates_of_decoders_are_the_plans_made_from_their_files(
    name: str, tmp_path: Path, plans: list[MemoryPlan]
) -> None:
    write_model_folder(load_fixture(name), tmp_path)
    assert estimate_memory(read_config(tmp_path)) == plan_load(load_model, tmp_path, plans)


@pytest.mark.parametrize("name", encoder_names())
def test_estimates_of_encoders_are_the_plans_made_from_their_files(
    name: str, tmp_path: Path, plans: list[MemoryPlan]
) -> None:
    write_encoder_folder(load_encoder_fixture(name).case, tmp_path)
    assert estimate_memory(read_config(tmp_path)) == plan_load(load_embedder, tmp_path, plans)


@pytest.mark.parametrize("quantization", MLC_FORMATS)
def test_estimates_hold_in_every_format(
    quantization: str, tmp_path: Path, plans: list[MemoryPlan]
) -> None:
    fixture = load_fixture("mha_untied_q4f32")
    weights = make_weights(fixture.case, fixture.seed)
    write_mlc_folder(fixture.case.config, weights, tmp_path, quantization)
    config = read_config(tmp_path)
    assert config.quantization == quantization
    assert estimate_memory(config) == plan_load(load_model, tmp_path, plans)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("opts", [{}, {"quantization": "q4f16_1", "context_window_size": 100}])
def test_estimates_hold_for_plain_files_and_options(
    opts: dict[str, Any], dtype: Dtype, tmp_path: Path, plans: list[MemoryPlan]
) -> None:
    write_hf_folder(load_fixture("qwen2_tied_q4f16"), tmp_path, dtype)
    plan = plan_load(load_model, tmp_path, plans, **opts)
    assert estimate_memory(read_config(tmp_path, **opts), "hf") == plan
    assert plan.can_be_quantised == (not opts)


def test_estimates_split_as_the_limits_demand(tmp_path: Path, plans: list[MemoryPlan]) -> None:
    write_model_folder(load_fixture("gqa_tied_q4f16"), tmp_path)
    config = read_config(tmp_path, prefill_chunk_size=8)
    whole, split = (estimate_memory(config, limits=limits) for limits in (Limits(), SMALL))
    assert split == plan_load(load_model, tmp_path, plans, SMALL, prefill_chunk_size=8)
    assert (len(split.caches), split.in_full) == (2 * len(whole.caches), whole.in_full)


def test_what_cannot_be_estimated_is_refused(tmp_path: Path) -> None:
    write_model_folder(load_fixture("gqa_tied_q4f16"), tmp_path)
    with pytest.raises(UnknownQuantizationError, match="quantization is 'q4_k_m', which is not"):
        estimate_memory(read_config(tmp_path, quantization="q4_k_m"))
    with pytest.raises(LimitSupportError, match="rows of embedding take"):
        estimate_memory(read_config(tmp_path), limits=Limits(max_storage_buffer_binding_size=64))
