"""Draws go on after those of another life of the model as if there had been only one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from py_engine.models.base import Draw, SamplingParams
from py_engine.models.decoder import Decoder
from tests.conformance.fixtures import load_fixture
from tests.conformance.running import load_on_numpy
from tests.support.numpy_device import NumpyDevice

SAMPLING = SamplingParams(
    temperature=1.5, seed=2**40 + 7, presence_penalty=0.5, frequency_penalty=0.7, top_logprobs=3
)
NAMES = [
    "gqa_tied_q4f16",
    "mistral_window_24_q0f32",
    "phi3_longrope_crossed_q4f16",
    "qwen3_5_tied_q4f16",
]
N_DRAWS = 24


async def prefill(model: Decoder, tokens: list[int], drawn: list[int]) -> None:
    model.start(SAMPLING, 0, len(tokens), drawn)
    for start in range(0, len(tokens), model.prefill_chunk_size):
        await model.prefill(tokens[start : start + model.prefill_chunk_size])


async def decoded(model: Decoder, first: Draw, n_draws: int) -> list[Draw]:
    draws = [first]
    while len(draws) < n_draws:
        await model.reserve(1)
        draws.append(await model.decode())
    return draws


@pytest.mark.parametrize("name", NAMES)
def test_draws_go_on(name: str, tmp_path: Path) -> None:
    fixture = load_fixture(name)

    async def fresh() -> Decoder:
        return await load_on_numpy(tmp_path, fixture, NumpyDevice(), {})

    async def run() -> None:
        prompt = fixture.prompt_ids
        model = await fresh()
        await prefill(model, prompt, [])
        whole = await decoded(model, await model.sample(), N_DRAWS)
        ids = [draw.token_id for draw in whole]
        for n_drawn in (1, 2, N_DRAWS - 2):
            model = await fresh()
            await prefill(model, prompt, ids[:n_drawn])
            await model.replay(ids[:n_drawn])
            exact = await decoded(model, await model.draw(), N_DRAWS - n_drawn)
            assert exact == whole[n_drawn:]
            await prefill(model, prompt + ids[:n_drawn], ids[:n_drawn])
            near = await decoded(model, await model.sample(), N_DRAWS - n_drawn)
            assert [draw.token_id for draw in near] == ids[n_drawn:]

    asyncio.run(run())


def test_what_was_drawn_counts(tmp_path: Path) -> None:
    """Without it the random numbers and the penalties begin anew."""
    fixture = load_fixture(NAMES[0])

    async def run() -> list[list[int]]:
        model = await load_on_numpy(tmp_path, fixture, NumpyDevice(), {})
        prompt = fixture.prompt_ids
        await prefill(model, prompt, [])
        whole = await decoded(model, await model.sample(), N_DRAWS)
        ids = [draw.token_id for draw in whole]
        await prefill(model, prompt + ids[:8], [])
        forgot = await decoded(model, await model.sample(), N_DRAWS - 8)
        return [ids[8:], [draw.token_id for draw in forgot]]

    goes_on, begins_anew = asyncio.run(run())
    assert goes_on != begins_anew
