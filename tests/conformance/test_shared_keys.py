"""Sequences that become too long for attention by one workgroup while they decode.

Their keys are shared out from then on, as GPUs have it; no reply shows when. Draws have several
kernels, too, of which greedy ones leave one out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from py_engine.kernels import sampling
from py_engine.kernels.forms import GemvForm, GemvForms, SplitKeys
from py_engine.kernels.tuning import Tuning
from py_engine.models import loader
from py_engine.models.base import SamplingParams
from tests.conformance import test_batcher
from tests.conformance import test_drafts as drafts
from tests.conformance.cases import N_PROMPT
from tests.conformance.fixtures import load_fixture
from tests.conformance.running import decode_in_worker, decode_on_numpy, load_on_numpy
from tests.conformance.test_decoder import assert_agrees
from tests.conformance.test_growing_cache import small_caches  # noqa: F401 (a fixture)
from tests.conftest import EngineWorker
from tests.kernels.conftest import subgroup_size_max
from tests.support.numpy_device import NumpyDevice

SHORT_TOKENS = N_PROMPT + 5
LLAMA = "gqa_tied_q4f16"
NAMES = [
    LLAMA,
    "gemma2_q4f16",
    "mistral_window_24_q0f32",
    "phi3_longrope_crossed_q4f16",
    "qwen3_5_tied_q4f16",
]

PATCH = """
from dataclasses import replace
from py_engine.kernels import tuning
from py_engine.kernels.forms import GemvForm, GemvForms, SplitKeys
from py_engine.kernels.tuning import Tuning
from py_engine.models import decoder_steps, loader

def always_shared(*arguments):
    steps = decoder_steps.decoder_steps(*arguments)
    return replace(steps, next_logits=decoder_steps.NextLogits(steps.next_logits.of_any))

keys = SplitKeys(64, 14, 9, short_tokens, 1 << 20, by_subgroups=False)
staged, quads = GemvForm(2, 16, unroll=2, staged=True), GemvForm(16, 16)
form = GemvForms.only(quads if by_lanes else staged) if lanes else None
tuned = Tuning(lanes, split_keys=keys, gemv=form, attention_by_lanes=by_lanes, masks_codes=by_lanes)
loader.tuning_for = (lambda *arguments: tuned) if short_tokens else tuning.tuning_for
loader.decoder_steps = always_shared if is_shared else decoder_steps.decoder_steps
"""


def patch(
    worker: EngineWorker,
    short_tokens: int,
    *,
    is_shared: bool = False,
    lanes: int | None = None,
    by_lanes: bool = False,
) -> None:
    """Let a worker's models share keys out; 0 `short_tokens` for as they do it themselves.

    With `lanes` products join parts; `by_lanes` all is as on adapters on the CPU.
    """
    worker.run(
        PATCH, short_tokens=short_tokens, is_shared=is_shared, lanes=lanes, by_lanes=by_lanes
    )


@pytest.fixture(autouse=True)
def shared_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let NumPy's device share out keys of sequences that are longer than SHORT_TOKENS."""
    keys = SplitKeys(64, workgroups=14, least_keys=9, alone_keys=SHORT_TOKENS)
    tuned = Tuning(split_keys=keys, sample_slices=4)
    monkeypatch.setattr(loader, "tuning_for", lambda *arguments: tuned)
    monkeypatch.setattr(sampling, "_LEAST_SLICE", 16)


@pytest.mark.parametrize("name", NAMES)
def test_replies_on_numpy(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    assert_agrees(fixture, decode_on_numpy(tmp_path, fixture))


@pytest.mark.usefixtures("small_caches")
def test_replies_while_caches_grow(tmp_path: Path) -> None:
    fixture = load_fixture(LLAMA)
    assert_agrees(fixture, decode_on_numpy(tmp_path, fixture, {"prefill_chunk_size": 16}))


@pytest.mark.parametrize("name", [LLAMA, "mistral_window_24_q0f32"])
def test_drafts(name: str, tmp_path: Path) -> None:
    drafts.check(*drafts.run_on_numpy(name, tmp_path))


def test_batches(tmp_path: Path) -> None:
    test_batcher.check(test_batcher.run_on_numpy(LLAMA, tmp_path), LLAMA)


def dispatches_of_steps(folder: Path, temperature: float) -> list[Counter[str]]:
    """Return the dispatches by kernel of ten steps behind a prompt, taken in every way in turn."""
    device, fixture = NumpyDevice(), load_fixture(LLAMA)

    async def run() -> list[Counter[str]]:
        model = await load_on_numpy(folder, fixture, device)
        found = []
        model.start(SamplingParams(temperature))
        for first in range(0, N_PROMPT, model.prefill_chunk_size):
            await model.prefill(fixture.prompt_ids[first : first + model.prefill_chunk_size])
        await model.reserve(10)
        await model.sample()
        for number in range(10):
            device.dispatched.clear()
            if number % 3 == 0:
                await model.decode()
            elif number % 3 == 1:
                model.next_logits()
                await model.draw()
            else:
                await model.replay([1])
                await model.draw()
            found.append(Counter(device.dispatched))
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("temperature", [0, 1e-5, 2e-5, 1])
def test_a_step_dispatches_no_more_than_it_needs(temperature: float, tmp_path: Path) -> None:
    for number, found in enumerate(dispatches_of_steps(tmp_path, temperature)):
        is_short = N_PROMPT + number + 1 <= SHORT_TOKENS
        assert found["attention"] == 2
        assert found["combine"] == (0 if is_short else 2)
        assert (found["survey"], found["sample"]) == (1, 1)
        assert found["narrow"] == (0 if temperature <= 1e-5 else 1)
        assert found.total() == 5 * 2 + 2 + found["combine"] + 2 + found["narrow"]


N_PARTS = 7
PART_KEYS = (N_PROMPT + 7) // N_PARTS
"""After a few tokens so many parts of a cache of two heads are too few."""


@pytest.fixture
def joined_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let products of NumPy's device join parts."""
    keys = SplitKeys(64, 2 * N_PARTS, least_keys=9, alone_keys=PART_KEYS, joined_bytes=1 << 20)
    staged = GemvForms.only(GemvForm(2, 16, unroll=2, staged=True))
    tuned = Tuning(4, split_keys=keys, gemv=staged)
    monkeypatch.setattr(loader, "tuning_for", lambda *arguments: tuned)


@pytest.mark.usefixtures("joined_parts")
@pytest.mark.parametrize("name", NAMES)
def test_replies_of_joined_parts_on_numpy(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)
    assert_agrees(fixture, decode_on_numpy(tmp_path, fixture))


@pytest.mark.usefixtures("joined_parts")
def test_products_join_few_parts(tmp_path: Path) -> None:
    n_joined = N_PARTS * PART_KEYS - N_PROMPT
    assert 3 < n_joined < 10
    n_combined = [found["combine"] for found in dispatches_of_steps(tmp_path, 0)]
    assert n_combined == [0] * n_joined + [2] * (10 - n_joined)


@pytest.mark.parametrize("by_lanes", [False, True], ids=["by threads", "by lanes"])
@pytest.mark.parametrize("name", [LLAMA, "gemma2_q4f16"])
def test_replies_of_joined_parts_on_webgpu(
    name: str, by_lanes: bool, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    lanes = engine_worker.run(subgroup_size_max)
    if lanes is None or (by_lanes and lanes != 4):
        pytest.skip("this adapter has no such subgroups")
    fixture = load_fixture(name)
    try:
        patch(engine_worker, (N_PROMPT + 5) // 3, lanes=lanes, by_lanes=by_lanes)
        found = decode_in_worker(tmp_path, fixture, engine_worker)
    finally:
        patch(engine_worker, 0)
    assert_agrees(fixture, found)


@pytest.mark.parametrize("name", [LLAMA, "gemma2_q4f16"])
def test_the_same_logits_to_the_last_bit_on_webgpu(
    name: str, tmp_path: Path, engine_worker: EngineWorker
) -> None:
    fixture = load_fixture(name)
    found = []
    try:
        for is_shared in (False, True):
            patch(engine_worker, SHORT_TOKENS, is_shared=is_shared)
            found.append(decode_in_worker(tmp_path, fixture, engine_worker))
    finally:
        patch(engine_worker, 0)
    assert_agrees(fixture, found[0])
    for some, others in zip(found[0].logits, found[1].logits, strict=True):
        assert some.tobytes() == others.tobytes()
