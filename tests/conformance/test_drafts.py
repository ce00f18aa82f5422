"""Drafts change no reply: the tokens are those that decoding draws one after another.

Greedy ones are those of transformers. Drafts are right, wrong from some token on, or too short.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from py_engine.errors import OutOfMemoryError
from py_engine.models.base import SamplingParams
from tests.conformance.fixtures import fixture_names, load_fixture, write_model_folder
from tests.conformance.running import drive_in_worker, drive_on_numpy, load_on_numpy
from tests.conformance.test_growing_cache import small_caches  # noqa: F401 (a fixture)
from tests.conftest import EngineWorker
from tests.support.small_gpu import SmallGpu

ON_WEBGPU = ["gqa_tied_q4f16", "mistral_window_24_q0f32", "gemma2_q4f16"]


async def drive(
    model: Any, prompt: list[int], n_tokens: int, prefix_lengths: list[int]
) -> dict[str, Any]:
    """Decode with and without drafts; this runs in the worker too."""
    from random import Random

    from py_engine.models.base import SamplingParams

    async def begin(sampling: SamplingParams) -> int:
        model.start(sampling)
        for start in range(0, len(prompt), model.prefill_chunk_size):
            await model.prefill(prompt[start : start + model.prefill_chunk_size])
        first: int = (await model.sample()).token_id
        return first

    async def plain(sampling: SamplingParams) -> list[int]:
        tokens = [await begin(sampling)]
        while len(tokens) < n_tokens:
            await model.reserve(1)
            tokens.append((await model.decode()).token_id)
        return tokens

    async def drafted(sampling: SamplingParams, expected: list[int], chance: Random) -> list[int]:
        tokens = [await begin(sampling)]
        most = await model.prepare_drafts(chance.randrange(1, 8))
        while len(tokens) < n_tokens:
            left = n_tokens - len(tokens) - 1
            draft = expected[len(tokens) :][: chance.randrange(min(most, left) + 1)]
            if draft and chance.random() < 0.5:
                wrong = chance.randrange(len(draft))
                draft[wrong] = (draft[wrong] + 1) % model.vocab_size
            if not draft:
                await model.reserve(1)
                draws = [(await model.decode()).token_id]
            else:
                draws = await model.verify(tokens[-1], draft)
            assert 1 <= len(draws) <= len(draft) + 1
            tokens += draws
        return tokens

    found: dict[str, Any] = {"most": None, "plain": [], "drafted": []}
    for sampling in (SamplingParams(temperature=0), SamplingParams(temperature=1.5, seed=7)):
        tokens = await plain(sampling)
        if found["most"] is None:
            found["most"] = await model.prepare_drafts(100)
        found["plain"].append(tokens)
        found["drafted"].append(
            [await drafted(sampling, tokens, Random(seed)) for seed in range(2)]
            if found["most"]
            else []
        )
    return found


def check(found: dict[str, Any], greedy_ids: list[int]) -> None:
    assert found["plain"][0] == greedy_ids
    assert found["plain"][0] != found["plain"][1]
    for plain, drafted in zip(found["plain"], found["drafted"], strict=True):
        assert drafted == [plain] * 2


@pytest.mark.sampled
@pytest.mark.parametrize("name", fixture_names())
def test_on_numpy(name: str, tmp_path: Path) -> None:
    found, greedy_ids = run_on_numpy(name, tmp_path)
    if found["most"]:
        check(found, greedy_ids)
    else:
        assert "qwen3_5" in name, "it could take drafts"


@pytest.mark.usefixtures("small_caches")
def test_while_the_cache_grows(tmp_path: Path) -> None:
    check(*run_on_numpy("gqa_tied_q4f16", tmp_path))


def run_on_numpy(name: str, folder: Path) -> tuple[dict[str, Any], list[int]]:
    fixture = load_fixture(name)
    write_model_folder(fixture, folder)
    return drive_on_numpy(drive, folder, fixture), fixture.greedy_ids


def test_a_full_gpu_refuses_drafts_and_goes_on(tmp_path: Path) -> None:
    fixture, device = load_fixture("gqa_tied_q4f16"), SmallGpu()

    async def run() -> None:
        model = await load_on_numpy(tmp_path, fixture, device)
        model.start(SamplingParams(temperature=0))
        await model.prefill(fixture.prompt_ids[:4])
        first = (await model.sample()).token_id
        n_buffers = len(device.live_buffers)
        device.budget = device.held + 1000
        with pytest.raises(OutOfMemoryError, match="making room for several tokens"):
            await model.prepare_drafts(7)
        assert len(device.live_buffers) == n_buffers
        device.budget = 1 << 30
        assert await model.prepare_drafts(7) == 7
        assert len(await model.verify(first, [1, 2, 3])) >= 1
        model.destroy()
        assert device.live_buffers == []

    asyncio.run(run())


@pytest.mark.parametrize("name", ON_WEBGPU)
def test_on_webgpu(name: str, tmp_path: Path, engine_worker: EngineWorker) -> None:
    fixture = load_fixture(name)
    write_model_folder(fixture, tmp_path)
    check(drive_in_worker(drive, tmp_path, fixture, engine_worker), fixture.greedy_ids)
