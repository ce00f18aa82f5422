"""LongRoPE: sequences on both sides of the original context, and on their way across, on NumPy.

transformers rotates a whole sequence by its long factors once it has more tokens than the model was
made for, and computes the cache again when an answer crosses that line. The fixture's prompt has 70
tokens, its line is at 80, its answer goes on to 94. The browser runs the same crossing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from tests.conformance.cases import N_PROMPT
from tests.conformance.fixtures import load_fixture
from tests.conformance.running import decode_in_worker, load_on_numpy
from tests.conformance.test_decoder import TOLERANCE, assert_agrees, relative_error
from tests.conftest import EngineWorker
from tests.support.numpy_device import NumpyDevice

FIXTURE = load_fixture("phi3_longrope_crossed_q4f16")
LIMIT = FIXTURE.case.config["original_max_position_embeddings"]
GREEDY = SamplingParams(temperature=0)


def run(
    folder: Path,
    play: Callable[[Decoder], Awaitable[None]],
    device: NumpyDevice | None = None,
    **options: Any,
) -> None:
    async def load_and_play() -> None:
        model = await load_on_numpy(folder, FIXTURE, device or NumpyDevice(), options)
        await play(model)
        model.destroy()

    asyncio.run(load_and_play())


async def logits_after(
    model: Decoder, length: int, kept: int = 0, chunk: int = 32, told: int = 0
) -> np.ndarray:
    """Return the logits after the fixture's first `length` tokens, `kept` of them in the cache.

    The model is `told` how many will come.
    """
    model.start(GREEDY, kept, told)
    for start in range(kept, length, chunk):
        await model.prefill(FIXTURE.token_ids[start : min(start + chunk, length)])
    model.first_logits()
    return np.array(await model.read_logits())


def assert_right(found: np.ndarray, length: int) -> None:
    expected = FIXTURE.logits_at(length - 1)
    assert relative_error(found[None], expected[None]) < TOLERANCE


def lengths_with_logits() -> list[int]:
    return [position + 1 for position in FIXTURE.positions]


def test_the_fixture_has_both_sides() -> None:
    assert N_PROMPT < LIMIT < len(FIXTURE.token_ids)
    assert min(lengths_with_logits()) <= LIMIT < max(lengths_with_logits())


def test_steps_ahead_cross_in_an_answer(tmp_path: Path) -> None:
    """Steps are enqueued before the tokens of earlier ones are known."""

    async def play(model: Decoder) -> None:
        for _ in range(2):
            await logits_after(model, N_PROMPT)
            await model.reserve(len(FIXTURE.greedy_ids))
            steps = [model.draw(), *(model.decode() for _ in FIXTURE.greedy_ids[1:])]
            assert [(await step).token_id for step in steps] == FIXTURE.greedy_ids

    run(tmp_path, play)


def test_halves_of_steps_cross_in_an_answer(tmp_path: Path) -> None:
    async def play(model: Decoder) -> None:
        await logits_after(model, N_PROMPT)
        drawn = [(await model.draw()).token_id]
        while len(drawn) < len(FIXTURE.greedy_ids):
            model.next_logits()
            drawn.append((await model.draw()).token_id)
        assert drawn == FIXTURE.greedy_ids

    run(tmp_path, play)


@pytest.mark.parametrize("chunk", [7, 32])
def test_a_prompt_that_crosses_within_a_chunk(tmp_path: Path, chunk: int) -> None:
    async def play(model: Decoder) -> None:
        for length in lengths_with_logits():
            assert_right(await logits_after(model, length, chunk=chunk), length)

    run(tmp_path, play)


def test_a_prompt_of_known_length_is_computed_once(tmp_path: Path) -> None:
    async def play(model: Decoder) -> None:
        for length in (*lengths_with_logits(), *reversed(lengths_with_logits())):
            device.dispatched.clear()
            assert_right(await logits_after(model, length, told=length), length)
            assert device.dispatched.count("prefill embed") == -(-length // 32)
            assert "recall" not in device.dispatched

    device = NumpyDevice()
    run(tmp_path, play, device)


def test_a_kept_beginning_crosses_and_comes_back(tmp_path: Path) -> None:
    """Short sequences can be gone on with past the line, long ones not be cut back across it."""
    longest = max(lengths_with_logits())
    shortest = min(length for length in lengths_with_logits())

    async def play(model: Decoder) -> None:
        await logits_after(model, LIMIT)
        assert model.reusable_tokens(LIMIT) == LIMIT
        assert_right(await logits_after(model, longest, kept=LIMIT - 5), longest)
        assert model.reusable_tokens(longest) == longest
        assert model.reusable_tokens(LIMIT + 1) == LIMIT + 1
        assert model.reusable_tokens(LIMIT) == 0
        assert_right(await logits_after(model, longest, kept=LIMIT + 1), longest)
        assert_right(await logits_after(model, shortest), shortest)

    run(tmp_path, play)


def test_a_context_within_the_line_never_crosses(tmp_path: Path) -> None:
    async def play(model: Decoder) -> None:
        assert model.spec.long_rope is None
        await logits_after(model, N_PROMPT)
        drawn = [(await model.draw()).token_id]
        drawn += [(await model.decode()).token_id for _ in range(LIMIT - N_PROMPT)]
        assert drawn == FIXTURE.greedy_ids[: LIMIT - N_PROMPT + 1]

    run(tmp_path, play, context_window_size=LIMIT)


def test_crossing_on_webgpu(tmp_path: Path, engine_worker: EngineWorker) -> None:
    assert_agrees(FIXTURE, decode_in_worker(tmp_path, FIXTURE, engine_worker))
