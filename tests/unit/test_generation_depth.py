"""Steps in flight: as many as hide the browser's read-backs, and none that changes a reply."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from py_engine.config import ChatConfig
from py_engine.generation import Generation, GenerationParams
from py_engine.generation.cached_tokens import CachedTokens
from py_engine.gpu.types import Dispatch
from py_engine.kernels.numpy_device import NumpyProgram
from py_engine.models.base import SamplingParams
from py_engine.models.loader import load_model
from py_engine.models.read_backs import steps_in_flight
from py_engine.storage.folder import FolderSource
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from py_engine.weights.checkpoint import open_checkpoint
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.support.fake_model import FakeModel
from tests.support.numpy_device import NumpyDevice
from tests.support.tokenizer_files import tokenizer_json

FIXTURE = load_fixture("gqa_tied_q4f16")


class SlowReads(NumpyDevice):
    """A device that answers each read-back after so many seconds."""

    def __init__(self, *seconds: float) -> None:
        super().__init__()
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
