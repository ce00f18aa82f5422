"""What WebLLM's own tests ask of its pipeline and helpers: C8, C11, C13, C14 and C17.

The numbers are those of its portable conformance list; docs/api.md has where the others are.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from py_engine import errors
from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.engine import MLCEngine
from py_engine.generation import Generation, GenerationParams
from py_engine.models.base import SamplingParams
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from py_engine.turns import Turns
from tests.support.fake_host import FakeHost
from tests.support.fake_model import FakeModel
from tests.support.scripted_engine import ScriptedEngine
from tests.support.tokenizer_files import tokenizer_json

STOP = 42


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2")))


def generated(
    tokenizer: Tokenizer, model: FakeModel, prompt: list[int] | None = None, **params: Any
) -> Generation:
    """Run a reply to its end."""

    async def run() -> Generation:
        generation = Generation(
            model, tokenizer, prompt or [1], GenerationParams(SamplingParams(), **params)
        )
        async for _ in generation.pieces():
            pass
        return generation

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("tokens", "lengths"), [(200, [200]), (2048, [2048]), (4097, [2048, 2048, 1])]
)
def test_c8_prompts_are_cut_into_chunks(
    tokenizer: Tokenizer, tokens: int, lengths: list[int]
) -> None:
    model = FakeModel([STOP], context_window_size=5000, prefill_chunk_size=2048)
    generated(tokenizer, model, [1] * tokens, max_tokens=1)
    assert [len(chunk) for chunk in model.chunks] == lengths


def test_c11_stop_token_gives_no_text(tokenizer: Tokenizer) -> None:
    generation = generated(tokenizer, FakeModel([STOP]), stop_token_ids=frozenset({STOP}))
    assert (generation.text, generation.finish_reason) == ("", "stop")


def test_c11_stop_string_is_cut_off(tokenizer: Tokenizer) -> None:
    model = FakeModel(tokenizer.encode("partial<stop>"))
    generation = generated(tokenizer, model, stop_strings=("<stop>",))
    assert (generation.text, generation.finish_reason) == ("partial", "stop")


def test_c11_max_tokens_ends_with_length(tokenizer: Tokenizer) -> None:
    generation = generated(tokenizer, FakeModel([7]), max_tokens=1)
    assert (generation.text, generation.finish_reason) == (tokenizer.decode([7]), "length")
    assert generation.statistics.completion_tokens == 1


def test_c11_negative_max_tokens_are_refused() -> None:
    request = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": -1}
    with pytest.raises(errors.MinValueError, match="max_tokens is -1"):
        ChatCompletionRequest.from_dict(request)


def test_c11_interruption_keeps_the_text(tokenizer: Tokenizer) -> None:
    said: list[str] = []

    async def run() -> Generation:
        model = FakeModel(tokenizer.encode("one two three four five"))
        generation = Generation(model, tokenizer, [1], GenerationParams(SamplingParams()))
        async for piece in generation.pieces():
            said.append(piece.text)
            if len("".join(said)) > 5:
                generation.interrupt()
        return generation

    generation = asyncio.run(run())
    assert generation.finish_reason == "abort"
    assert generation.text == "".join(said)
    assert "one two three four five".startswith(generation.text)


def test_c11_ignored_end_of_sequence_stays(tokenizer: Tokenizer) -> None:
    model = FakeModel([STOP, STOP])
    generation = generated(tokenizer, model, stop_token_ids=frozenset(), max_tokens=2)
    assert (generation.text, generation.finish_reason) == (tokenizer.decode([STOP] * 2), "length")


HOT, COLD = {"temperature": 1.0}, {"temperature": 0.0}


@pytest.mark.parametrize(
    ("loaded", "expected", "equal"),
    [
        (None, None, True),
        (None, [HOT, COLD], False),
        ([HOT, COLD], None, False),
        ([HOT, COLD], [HOT, COLD], True),
        ([HOT, COLD], [COLD, HOT], False),
        ([HOT, {}], [HOT, COLD], False),
        ([{**HOT, "top_p": 1.0}, {}], [{"top_p": 1.0, **HOT}, {}], True),
    ],
)
def test_c13_a_reload_happens_where_options_differ(loaded: Any, expected: Any, equal: bool) -> None:
    async def run() -> int:
        engine = ScriptedEngine()
        handler = WebWorkerMLCEngineHandler(engine, lambda message: None)
        await handler.reload_if_unmatched(["a", "b"], loaded)
        await handler.reload_if_unmatched(["a", "b"], expected)
        return sum(name == "reload" for name, _ in engine.calls)

    assert asyncio.run(run()) == (1 if equal else 2)


def test_c14_five_at_once_take_turns() -> None:
    count = 0

    async def add_one(turns: Turns) -> None:
        nonlocal count
        async with turns.take():
            before = count
            await asyncio.sleep(0.001)
            count = before + 1

    async def run() -> None:
        turns = Turns()
        await asyncio.gather(*(add_one(turns) for _ in range(5)))

    asyncio.run(run())
    assert count == 5


def test_c17_usage_of_two_choices_of_three_tokens() -> None:
    """The prompt counts once, as OpenAI counts it; WebLLM counts it for each choice."""

    async def run() -> Any:
        host = FakeHost("model")
        host.scripts["model"] = [7, 8, 9, 10]
        engine = MLCEngine({"app_config": host.app_config}, host=host)
        await engine.reload("model")
        request = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        one = await engine.chat_completion(request)
        return one.usage, (await engine.chat_completion({**request, "n": 2})).usage

    one, two = asyncio.run(run())
    assert (one.completion_tokens, two.completion_tokens) == (3, 6)
    assert two.prompt_tokens == one.prompt_tokens
    assert two.total_tokens == two.prompt_tokens + 6
