"""Steps in flight: as many as hide the browser's read-backs, and none that changes a reply."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from py_engine.config import ChatConfig
from py_engine.generation import Generation, GenerationParams
from py_engine.generation.cached_tokens import CachedTokens
from py_engine.gpu.types import AdapterInfo, Dispatch
from py_engine.kernels.numpy_device import NumpyProgram
from py_engine.models.base import SamplingParams
from py_engine.models.loader import load_model
from py_engine.models.read_backs import FEWEST_STEPS, steps_in_flight
from py_engine.storage.folder import FolderSource
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.support.fake_model import FakeModel
from tests.support.numpy_device import NumpyDevice
from tests.support.tokenizer_files import tokenizer_json

FIXTURE = load_fixture("gqa_tied_q4f16")
GPU = AdapterInfo("acme", "roadrunner")


class SlowReads(NumpyDevice):
    """A device that answers each read-back after so many seconds."""

    def __init__(self, *seconds: float) -> None:
        super().__init__()
        self.info = GPU
        self._seconds = iter(seconds)

    def program(self, dispatches: Sequence[Dispatch], label: str) -> NumpyProgram:
        program = super().program(dispatches, label)

        async def read() -> int:
            await asyncio.sleep(next(self._seconds))
            return 0

        # A stub of this one method.
        program.submit_and_read = lambda source, offset: read()  # type: ignore[method-assign]
        return program


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [
        ((0, 0, 0), 2, 2),
        ((0.2, 0.05, 0.001), 2, 3),  # as Chrome on a busy machine
        ((0.05, 0.03, 0.05), 7, 9),
        ((0.1, 0.1, 0.1), 16, 16),  # as Firefox
    ],
)
def test_slow_read_backs_are_hidden_by_more_steps(
    seconds: tuple[float, ...], least: int, most: int
) -> None:
    device = SlowReads(*seconds)
    assert least <= asyncio.run(steps_in_flight(device)) <= most
    assert device.live_buffers == []


def test_an_adapter_on_the_cpu_gets_the_fewest() -> None:
    """What it compiles meanwhile delays all of its read-backs."""
    device = SlowReads(0.1, 0.1, 0.1)
    device.info = replace(GPU, is_fallback=True)
    assert asyncio.run(steps_in_flight(device)) == FEWEST_STEPS


def test_the_first_token_does_not_wait_for_what_steps_need(tokenizer: Tokenizer) -> None:
    """Kernels of decode may compile longer than those that a prompt needs."""
    script = tokenizer.encode("one two three")
    model = FakeModel(script)
    model.has_all_kernels = False
    events: list[str] = []
    reserve = model.reserve

    async def noted(n_tokens: int) -> None:
        events.append("reserve")
        model.has_all_kernels = True
        await reserve(n_tokens)

    model.reserve = noted  # type: ignore[method-assign]
    params = GenerationParams(SamplingParams(0), max_tokens=len(script))

    async def run() -> str:
        generation = Generation(model, tokenizer, [1, 2, 3], params)
        pieces = generation.pieces()
        events.append((await anext(pieces)).text)
        events.extend([piece.text async for piece in pieces])
        return generation.text

    assert asyncio.run(run()) == "one two three"
    assert events[1] == "reserve" and "one".startswith(events[0])


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
        model.steps_in_flight = depth
        generation = Generation(model, tokenizer, [1, 2, 3], params, cached)
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
            model.steps_in_flight = depth
            generation = Generation(model, tokenizer, prompt, params)
            async for _ in generation.pieces():
                pass
            found.append((generation.text, generation.statistics.completion_tokens))
        return found

    first, *others = asyncio.run(replies())
    assert first[1] == 24
    assert others == [first, first]
