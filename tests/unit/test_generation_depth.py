"""Steps in flight: as many as make waits shorter, and none that changes a reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from py_engine.config import ChatConfig
from py_engine.generation import Generation, GenerationParams, RunAheadDepth
from py_engine.generation.cached_tokens import CachedTokens
from py_engine.generation.depth import FEWEST_STEPS, MOST_STEPS, WINDOW
from py_engine.models.base import SamplingParams
from py_engine.models.loader import load_model
from py_engine.storage.folder import FolderSource
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.support.fake_model import FakeModel
from tests.support.numpy_device import NumpyDevice
from tests.support.tokenizer_files import tokenizer_json

FIXTURE = load_fixture("gqa_tied_q4f16")


def wait_often(depth: RunAheadDepth, wait: Callable[[int], float], n_windows: int) -> list[int]:
    """Let waits be what `wait` gives for a depth; return the depths after each window."""
    found = []
    for _ in range(n_windows):
        for _ in range(WINDOW):
            depth.waited(wait(depth.steps))
        found.append(depth.steps)
    return found


def test_a_slow_read_back_is_hidden_by_more_steps() -> None:
    """As in Firefox: 100 ms until a read-back is answered, whatever the GPU does meanwhile."""
    found = wait_often(RunAheadDepth(), lambda steps: 0.1 / steps, 12)
    assert found[-1] == MOST_STEPS
    assert found == sorted(found)


def test_a_gpu_that_is_busy_anyway_gets_two_steps_and_ever_rarer_trials() -> None:
    found = wait_often(RunAheadDepth(), lambda steps: 0.02, 200)
    trials = [i for i, steps in enumerate(found) if steps > FEWEST_STEPS]
    assert max(found) == 2 * FEWEST_STEPS
    assert len(trials) < 20
    assert found[100:].count(FEWEST_STEPS) > 90


def test_depth_ends_where_the_gpu_is_busy() -> None:
    """Steps of 10 ms and read-backs of 35 ms: four steps hide them."""
    depth = RunAheadDepth()
    found = wait_often(depth, lambda steps: max(0.010, 0.035 / steps), 60)
    assert sorted(found[20:])[20] == 4


def test_no_trial_where_tokens_are_there_when_asked_for() -> None:
    assert set(wait_often(RunAheadDepth(), lambda steps: 1e-5, 20)) == {FEWEST_STEPS}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2")))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("stop string", "stop"),
        ("max_tokens", "length"),
        ("interruption", "abort"),
        ("stop token", "stop"),
        ("full context", "length"),
    ],
)
def test_what_ends_a_reply_does_not_depend_on_the_depth(
    tokenizer: Tokenizer, end: str, reason: str
) -> None:
    words = "one two three four five six seven eight nine ten"
    script = tokenizer.encode(words)
    if end == "stop token":
        script.insert(6, 500)
    params = GenerationParams(
        SamplingParams(0.5),
        stop_token_ids=frozenset({500}),
        stop_strings=("five",) if end == "stop string" else (),
        max_tokens=7 if end == "max_tokens" else None,
    )

    async def reply(depth: int) -> tuple[list[str], int]:
        model = FakeModel(script, context_window_size=12 if end == "full context" else 64)
        cached = CachedTokens()
        steps = RunAheadDepth(depth)
        generation = Generation(model, tokenizer, [1, 2, 3], params, cached, steps)
        if end == "interruption":
            model.on_step = lambda number: generation.interrupt() if number == 5 else None
        pieces = [piece.text async for piece in generation.pieces()]
        n_tokens = generation.statistics.completion_tokens
        assert (generation.finish_reason, "".join(pieces)) == (reason, generation.text)
        assert (model.in_flight, model.most_in_flight <= depth) == (0, True)
        # Steps past the end may be in the model's cache, but a next prompt is compared with them.
        assert cached.common_prefix([1, 2, 3, *script]) == len(cached) >= 3 + n_tokens - 1
        assert len(cached) <= 3 + n_tokens + depth - 1
        return pieces, n_tokens

    first, *others = [asyncio.run(reply(depth)) for depth in (1, 2, 16)]
    assert 3 < first[1] < len(script)
    assert words.startswith("".join(first[0]))
    assert others == [first, first]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_are_the_same_at_any_depth(tmp_path: Path, temperature: float) -> None:
    """Draws with seed, penalties and top_p, of a real decoder on the kernels' references."""
    write_model_folder(FIXTURE, tmp_path)
    sampling = SamplingParams(temperature, top_p=0.9, seed=11, frequency_penalty=0.5)

    async def replies() -> list[tuple[str, int]]:
        checkpoint = await open_checkpoint(FolderSource(tmp_path))
        config = ChatConfig.from_json(checkpoint.config_json)
        model = await load_model(NumpyDevice(), checkpoint, config, lambda progress: None)
        tokenizer = await tokenizer_from_json(tokenizer_json("gpt2"))
        found = []
        for depth in (1, 2, 16):
            params = GenerationParams(sampling, max_tokens=24)
            prompt = FIXTURE.prompt_ids[:9]
            generation = Generation(model, tokenizer, prompt, params, depth=RunAheadDepth(depth))
            async for _ in generation.pieces():
                pass
            found.append((generation.text, generation.statistics.completion_tokens))
        return found

    first, *others = asyncio.run(replies())
    assert first[1] == 24
    assert others == [first, first]
