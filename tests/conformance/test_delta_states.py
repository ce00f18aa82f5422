"""Turns of a chat on a model with recurrent states, which cannot be cut back.

Replies are drawn ahead of the CPU, so the states are past a stop when it is seen. Whatever a turn
keeps of the ones before, its logits are those of the same tokens in a sequence of their own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from py_engine.errors import DeviceLostError
from py_engine.generation import Generation, GenerationParams
from py_engine.generation.cached_tokens import CachedTokens
from py_engine.models.base import Draw, SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.delta_states import LEAST_GAIN, SAVED_BEFORE_END
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from tests.conformance.cases import CONTEXT, N_PROMPT
from tests.conformance.fixtures import load_fixture, write_model_folder
from tests.conformance.running import drive_in_worker, load_folder_on_numpy
from tests.conformance.test_decoder import F16_CACHE_TOLERANCE, relative_error
from tests.conftest import EngineWorker
from tests.support.extent import RANDOM_SEEDS
from tests.support.numpy_device import NumpyDevice
from tests.support.tokenizer_files import tokenizer_json

FIXTURE = load_fixture("qwen3_5_grouped_q4f32")
PROMPT, GREEDY = FIXTURE.prompt_ids, FIXTURE.greedy_ids
SAVED = N_PROMPT - SAVED_BEFORE_END
ENDINGS = ("length", "stop token", "stop string", "interrupted", "closed", "failed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_model_folder(FIXTURE, path)
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2")))


class FailingModel:
    """A model whose reads of drawn tokens fail while `fails`: the GPU runs on."""

    def __init__(self, model: Decoder) -> None:
        self._model = model
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def decode(self) -> Awaitable[Draw]:
        drawing = self._model.decode()

        async def read() -> Draw:
            draw = await drawing
            if self.fails:
                raise DeviceLostError("a read failed")
            return draw

        return read()


class Chat:
    """A model with what generation knows of its cache, and another one to compare with."""

    def __init__(self, model: Decoder, fresh: Decoder, tokenizer: Tokenizer) -> None:
        self.model = FailingModel(model)
        self.cached = CachedTokens()
        self._fresh = fresh
        self._tokenizer = tokenizer

    async def reply(self, prompt: list[int], ending: str, n_tokens: int) -> int:
        """Give a greedy reply that ends at token `n_tokens`; return how many tokens were kept."""
        expected = await self._greedy(prompt, n_tokens)
        params: dict[str, Any] = {}
        if ending == "length":
            params["max_tokens"] = n_tokens
        elif ending == "stop token":
            params["stop_token_ids"] = frozenset((expected[-1],))
        elif ending == "stop string":
            params["stop_strings"] = (self._tokenizer.decode([expected[-1]]),)
        sampling = SamplingParams(temperature=0)
        generation = Generation(
            self.model,
            self._tokenizer,
            prompt,
            GenerationParams(sampling, **params),
            self.cached,
        )
        seen = 0
        self.model.fails = False
        try:
            async with aclosing(generation.pieces()) as pieces:
                async for _ in pieces:
                    seen += 1
                    if seen == n_tokens and ending == "interrupted":
                        generation.interrupt()
                    if seen == n_tokens and ending == "closed":
                        break
                    self.model.fails = seen >= n_tokens and ending == "failed"
        except DeviceLostError:
            assert ending == "failed"
        self.model.fails = False
        return generation.statistics.cached_tokens

    async def _greedy(self, prompt: list[int], n_tokens: int) -> list[int]:
        await _prefill(self._fresh, prompt, 0)
        draws = [await self._fresh.sample()]
        draws += [await self._fresh.decode() for _ in range(n_tokens - 1)]
        return [draw.token_id for draw in draws]

    async def goes_on_with(self, tokens: list[int]) -> int:
        """Compare the logits after `tokens`; return how many of them the model had kept."""
        common = min(self.cached.common_prefix(tokens), len(tokens) - 1)
        kept = self.model.reusable_tokens(common)
        self.cached.keep(kept)
        await _prefill(self.model, tokens, kept)
        self.cached.append_prefilled(tokens[kept:])
        await _prefill(self._fresh, tokens, 0)
        found, expected = [await _logits(model) for model in (self.model, self._fresh)]
        assert relative_error(found[None], expected[None]) < F16_CACHE_TOLERANCE
        return kept


async def _prefill(model: Any, tokens: list[int], kept: int) -> None:
    model.start(SamplingParams(temperature=0), kept, len(tokens))
    for start in range(kept, len(tokens), model.prefill_chunk_size):
        await model.prefill(tokens[start : start + model.prefill_chunk_size])


async def _logits(model: Any) -> np.ndarray:
    model.first_logits()
    return np.array(await model.read_logits())


def play(
    folder: Path, tokenizer: Tokenizer, turns: Callable[[Chat], Awaitable[None]], **opts: Any
) -> None:
    async def run() -> None:
        devices = NumpyDevice(), NumpyDevice()
        models = [await load_folder_on_numpy(folder, device, opts) for device in devices]
        await turns(Chat(*models, tokenizer))
        for model, device in zip(models, devices, strict=True):
            model.destroy()
            assert device.live_buffers == []

    asyncio.run(run())


def test_a_turn_goes_on_from_the_end_of_the_reply(folder: Path, tokenizer: Tokenizer) -> None:
    """The token of the stop is in the sequence: the step ahead has taken it in."""

    async def turns(chat: Chat) -> None:
        n_tokens = GREEDY.index(GREEDY[5]) + 1
        assert await chat.reply(PROMPT, "stop token", n_tokens) == 0
        history = [*PROMPT, *GREEDY[:n_tokens]]
        assert len(chat.cached) == len(history)
        assert await chat.goes_on_with([*history, *PROMPT[:20]]) == len(history)

    play(folder, tokenizer, turns)


@pytest.mark.parametrize("n_left_away", range(SAVED_BEFORE_END + 2))
def test_a_turn_goes_on_before_the_end_of_the_prompt(
    n_left_away: int, folder: Path, tokenizer: Tokenizer
) -> None:
    """A history without what opened the reply; further back nothing can be kept."""

    async def turns(chat: Chat) -> None:
        await chat.reply(PROMPT, "length", 6)
        history = [*PROMPT[: N_PROMPT - n_left_away], *GREEDY[2:8]]
        kept = await chat.goes_on_with([*history, *PROMPT[:20]])
        assert kept == (SAVED if n_left_away <= SAVED_BEFORE_END else 0)

    play(folder, tokenizer, turns)


def test_other_replies_to_the_same_prompt_go_on_from_the_copy(
    folder: Path, tokenizer: Tokenizer
) -> None:
    """As with n > 1, and a reply that is asked for again."""

    async def turns(chat: Chat) -> None:
        for kept in (0, SAVED, SAVED):
            assert await chat.goes_on_with(PROMPT) == kept
            assert await chat.reply(PROMPT, "interrupted", 3) == SAVED

    play(folder, tokenizer, turns)


@pytest.mark.parametrize("chunk", [1, 23, SAVED, CONTEXT])
def test_the_copy_in_chunks_of_other_sizes(chunk: int, folder: Path, tokenizer: Tokenizer) -> None:
    """In the middle of a chunk, and between two."""

    async def turns(chat: Chat) -> None:
        await chat.reply(PROMPT, "length", 2)
        assert await chat.goes_on_with(PROMPT) == SAVED

    play(folder, tokenizer, turns, prefill_chunk_size=chunk)


def test_a_few_tokens_after_a_long_reply(folder: Path, tokenizer: Tokenizer) -> None:
    """The place of the next copy is in the reply: it has passed."""

    async def turns(chat: Chat) -> None:
        n_tokens = LEAST_GAIN + SAVED_BEFORE_END
        await chat.reply(PROMPT, "length", n_tokens + 1)
        assert len(chat.cached) == N_PROMPT + n_tokens
        history = chat.cached._ids[:]
        assert await chat.goes_on_with([*history, 5, 6, 7]) == len(history)
        assert await chat.goes_on_with([*history[:-10], 5, 6, 7]) == SAVED

    play(folder, tokenizer, turns)


def test_short_prompts_are_not_split(folder: Path, tokenizer: Tokenizer) -> None:
    async def turns(chat: Chat) -> None:
        short = PROMPT[: LEAST_GAIN + SAVED_BEFORE_END - 1]
        await chat.reply(short, "length", 2)
        assert await chat.goes_on_with(short) == 0
        longer = PROMPT[1 : len(short) + 2]
        await chat.reply(longer, "length", 2)
        assert await chat.goes_on_with(longer) == LEAST_GAIN

    play(folder, tokenizer, turns)


def test_a_prompt_that_was_interrupted(folder: Path, tokenizer: Tokenizer) -> None:
    """Prefill ends after a chunk; what there is of it is kept where it is the next one's begin."""

    async def turns(chat: Chat) -> None:
        chat.model.start(SamplingParams(temperature=0), 0, N_PROMPT)
        await chat.model.prefill(PROMPT[:32])
        chat.cached.append_prefilled(PROMPT[:32])
        assert await chat.goes_on_with([*PROMPT[:32], *GREEDY]) == 32
        chat.model.start(SamplingParams(temperature=0), 0, N_PROMPT)
        chat.cached.keep(0)
        await chat.model.prefill(PROMPT[:32])
        chat.cached.append_prefilled(PROMPT[:32])
        assert await chat.goes_on_with([*PROMPT[:20], *GREEDY]) == 0

    play(folder, tokenizer, turns)


@pytest.mark.parametrize("seed", RANDOM_SEEDS)
def test_any_turns(seed: int, folder: Path, tokenizer: Tokenizer) -> None:
    """Replies that end in every way, and turns that go on from any point of what there was."""
    chance = random.Random(seed)
    kept: list[int] = []

    async def turns(chat: Chat) -> None:
        held: list[int] = []
        for ending in chance.sample(ENDINGS * 2, 2 * len(ENDINGS)):
            cut = chance.choice((0, 0, 1, 3, chance.randrange(60)))
            begin = held[: max(0, len(held) - cut)][:70]
            prompt = [*begin, *chance.choices(range(131), k=chance.randint(1, 40))]
            kept.append(await chat.reply(prompt, ending, chance.randint(1, 9)))
            held = chat.cached._ids[:]
            cut = chance.choice((0, 0, 2, len(held) - len(prompt) + 2))
            tokens = [*held[: len(held) - cut], chance.randrange(131)]
            kept.append(await chat.goes_on_with(tokens))
            held = tokens

    play(folder, tokenizer, turns)
    assert any(kept)


async def drive(
    model: Any, prompt: list[int], n_tokens: int, prefix_lengths: list[int]
) -> dict[str, Any]:
    """Reply, take the prompt's end back and come to it again, and reply anew; runs in a worker."""
    from py_engine.models.base import SamplingParams

    found, kept = [], 0
    for _ in range(3):
        model.start(SamplingParams(temperature=0), kept, len(prompt))
        for start in range(kept, len(prompt), model.prefill_chunk_size):
            await model.prefill(prompt[start : start + model.prefill_chunk_size])
        tokens = [(await model.sample()).token_id]
        logits = (await model.read_logits()).tobytes()
        await model.reserve(n_tokens)
        drawing = [model.decode() for _ in range(n_tokens - 1)]
        tokens += [(await draw).token_id for draw in drawing]
        found.append({"kept": kept, "tokens": tokens, "logits": logits})
        kept = model.reusable_tokens(len(prompt) - 1)
    return {"found": found}


def test_replies_from_the_copy_on_webgpu(folder: Path, engine_worker: EngineWorker) -> None:
    """What goes on from it is the same to the last bit."""
    first, *others = drive_in_worker(drive, folder, FIXTURE, engine_worker)["found"]
    assert first["kept"] == 0
    assert first["tokens"] == GREEDY
    for other in others:
        assert other == {**first, "kept": SAVED}
