"""Replies with drafts: the same as without, in fewer steps."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from py_engine.errors import DeviceLostError
from py_engine.generation import Generation, GenerationParams
from py_engine.generation.cached_tokens import CachedTokens
from py_engine.models.base import Draw, SamplingParams
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from tests.support.fake_model import FakeModel
from tests.support.tokenizer_files import tokenizer_json

TEXT = "The cat sat on the mat. The cat sat on the mat. The cat sat on the hat."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2")))


def generation(
    tokenizer: Tokenizer, model: FakeModel, cached: CachedTokens | None = None, **params: Any
) -> Generation:
    stops = frozenset({500})
    made = GenerationParams(SamplingParams(0.5), stop_token_ids=stops, **params)
    return Generation(model, tokenizer, [1, 2, 3], made, cached)


def model_of(tokenizer: Tokenizer, text: str = TEXT) -> FakeModel:
    return FakeModel([*tokenizer.encode(text), 500], context_window_size=200)


async def read(reply: Generation) -> str:
    return "".join([piece.text async for piece in reply.pieces()])


@pytest.mark.parametrize("draft_tokens", [1, 3, 7, 100])
def test_text_and_end_are_the_same(tokenizer: Tokenizer, draft_tokens: int) -> None:
    model = model_of(tokenizer)
    reply = generation(tokenizer, model, draft_tokens=draft_tokens)
    assert asyncio.run(read(reply)) == TEXT
    assert reply.finish_reason == "stop"
    statistics = reply.statistics
    assert statistics.completion_tokens == len(tokenizer.encode(TEXT)) + 1
    assert statistics.accepted_draft_tokens > 0
    proposed = sum(map(len, model.drafts))
    assert statistics.accepted_draft_tokens + statistics.rejected_draft_tokens == proposed
    assert max(map(len, model.drafts)) <= min(draft_tokens, 7)


def test_a_true_prediction_takes_few_steps(tokenizer: Tokenizer) -> None:
    model, tokens = model_of(tokenizer), tokenizer.encode(TEXT)
    reply = generation(tokenizer, model, draft_tokens=7, prediction=tokens)
    assert asyncio.run(read(reply)) == TEXT
    assert len(model.drafts) == -(-len(tokens) // 8)
    assert reply.statistics.accepted_draft_tokens == len(tokens) - len(model.drafts)


@pytest.mark.parametrize("max_tokens", range(1, 24))
def test_max_tokens(tokenizer: Tokenizer, max_tokens: int) -> None:
    tokens = tokenizer.encode(TEXT)
    model = model_of(tokenizer)
    reply = generation(tokenizer, model, draft_tokens=7, prediction=tokens, max_tokens=max_tokens)
    assert asyncio.run(read(reply)) == tokenizer.decode(tokens[:max_tokens])
    assert (reply.finish_reason, reply.statistics.completion_tokens) == ("length", max_tokens)
    assert model.tokens_drawn == max_tokens


def test_the_context_window_ends_a_reply(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(TEXT)
    model = FakeModel(tokens, context_window_size=12)
    reply = generation(tokenizer, model, draft_tokens=7, prediction=tokens)
    assert asyncio.run(read(reply)) == tokenizer.decode(tokens[:10])
    assert reply.finish_reason == "length"


def test_the_cache_holds_what_the_model_has(tokenizer: Tokenizer) -> None:
    """Past a stop string, too: what was verified together is in the sequence."""
    cached, model = CachedTokens(), model_of(tokenizer)
    tokens = tokenizer.encode(TEXT)
    reply = generation(
        tokenizer, model, cached, draft_tokens=7, prediction=tokens, stop_strings=("sat",)
    )
    assert asyncio.run(read(reply)) == "The cat "
    assert cached.common_prefix(model.sequence) == len(cached) == len(model.sequence)


@pytest.mark.parametrize("is_reproducible", [False, True])
@pytest.mark.parametrize("n_replayed", [1, 9])
def test_a_reply_that_goes_on(tokenizer: Tokenizer, n_replayed: int, is_reproducible: bool) -> None:
    """What was replayed counts for the lookup, and for a prediction that was right so far."""
    model, tokens = model_of(tokenizer), tokenizer.encode(TEXT)
    reply = generation(
        tokenizer,
        model,
        draft_tokens=7,
        prediction=tokens,
        replayed=[Draw(token_id) for token_id in tokens[:n_replayed]],
        is_reproducible=is_reproducible,
    )
    assert asyncio.run(read(reply)) == TEXT
    assert model.drafts[0] == tokens[n_replayed + 1 : n_replayed + 8]


@pytest.mark.parametrize("longest", [0, 2])
def test_a_model_that_takes_few_or_none(tokenizer: Tokenizer, longest: int) -> None:
    model = model_of(tokenizer)
    model.longest_draft = longest
    reply = generation(tokenizer, model, draft_tokens=7)
    assert asyncio.run(read(reply)) == TEXT
    assert (len(model.drafts) > 0) == (longest > 0)


def test_an_interruption_and_an_early_end(tokenizer: Tokenizer) -> None:
    async def run() -> None:
        model = model_of(tokenizer)
        reply = generation(tokenizer, model, draft_tokens=7)
        model.on_step = lambda number: reply.interrupt() if number == 9 else None
        text = await read(reply)
        assert TEXT.startswith(text) and reply.finish_reason == "abort"
        reply = generation(tokenizer, model, draft_tokens=7)
        async with aclosing(reply.pieces()) as pieces:
            async for _ in pieces:
                break
        assert await read(generation(tokenizer, model, draft_tokens=7)) == TEXT

    asyncio.run(run())


def test_a_failure_is_passed_on_and_the_next_reply_works(tokenizer: Tokenizer) -> None:
    async def run() -> None:
        model, cached = model_of(tokenizer), CachedTokens()
        model.fail_at = {12: DeviceLostError("gone")}
        with pytest.raises(DeviceLostError, match="gone"):
            await read(generation(tokenizer, model, cached, draft_tokens=7))
        assert cached.common_prefix(model.sequence) == len(cached)
        model.fail_at = {}
        assert await read(generation(tokenizer, model, cached, draft_tokens=7)) == TEXT

    asyncio.run(run())
