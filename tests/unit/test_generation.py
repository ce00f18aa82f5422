"""Generation over a scripted model: what ends a reply, what is shown, what is left in flight."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from py_engine.errors import (
    ConfigValueError,
    ContextWindowSizeExceededError,
    DeviceLostError,
    OutOfMemoryError,
)
from py_engine.generation import Generation, GenerationParams, Statistics
from py_engine.generation.cached_tokens import CachedTokens
from py_engine.models.base import Draw, SamplingParams
from py_engine.tokenizer import Tokenizer, tokenizer_from_json
from tests.support.fake_model import FakeModel
from tests.support.tokenizer_files import tokenizer_json

PROMPT = list(range(5))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2")))


def make(
    tokenizer: Tokenizer, model: FakeModel, prompt: list[int] = PROMPT, **params: Any
) -> Generation:
    return Generation(model, tokenizer, prompt, GenerationParams(SamplingParams(0.5), **params))


async def read(generation: Generation) -> list[str]:
    return [piece.text async for piece in generation.pieces()]


def reply(
    tokenizer: Tokenizer, text: str, end: int | None = 500, **params: Any
) -> tuple[Generation, FakeModel, list[str]]:
    """Run a model that draws the tokens of `text` and then `end`."""
    model = FakeModel([*tokenizer.encode(text), *([] if end is None else [end])])
    generation = make(tokenizer, model, stop_token_ids=frozenset({500}), **params)
    return generation, model, asyncio.run(read(generation))


def test_stop_token_ends_the_reply_and_is_not_shown(tokenizer: Tokenizer) -> None:
    generation, model, pieces = reply(tokenizer, "The quick brown fox")
    assert "".join(pieces) == generation.text == "The quick brown fox"
    assert "" not in pieces
    assert generation.finish_reason == "stop"
    assert generation.statistics.completion_tokens == len(tokenizer.encode(generation.text)) + 1
    assert model.samplings == [SamplingParams(0.5)]


def test_stop_token_first_gives_an_empty_reply(tokenizer: Tokenizer) -> None:
    generation, _, pieces = reply(tokenizer, "")
    assert (pieces, generation.finish_reason) == ([], "stop")


def test_pieces_hold_whole_characters(tokenizer: Tokenizer) -> None:
    _, _, pieces = reply(tokenizer, "a🙂b")
    assert pieces == ["a", "🙂", "b"]


def test_prompt_is_prefilled_in_chunks(tokenizer: Tokenizer) -> None:
    model = FakeModel([500])
    prompt = list(range(40))
    generation = make(tokenizer, model, prompt, stop_token_ids=frozenset({500}))
    asyncio.run(read(generation))
    assert model.chunks == [prompt[:16], prompt[16:32], prompt[32:]]
    assert generation.statistics.prefilled_tokens == 40


@pytest.mark.parametrize("max_tokens", [1, 2, 5])
def test_max_tokens_ends_with_length_and_draws_no_more(
    tokenizer: Tokenizer, max_tokens: int
) -> None:
    generation, model, _ = reply(tokenizer, "a b c d e f g h", max_tokens=max_tokens)
    assert generation.finish_reason == "length"
    assert generation.statistics.completion_tokens == model.tokens_drawn == max_tokens


def test_full_context_window_ends_with_length(tokenizer: Tokenizer) -> None:
    model = FakeModel(tokenizer.encode("x " * 100), context_window_size=8)
    generation = make(tokenizer, model)
    asyncio.run(read(generation))
    assert generation.finish_reason == "length"
    assert generation.statistics.completion_tokens == 8 - len(PROMPT) + 1


def test_prompt_of_the_whole_window_still_gets_one_token(tokenizer: Tokenizer) -> None:
    model = FakeModel(context_window_size=5)
    generation = make(tokenizer, model)
    asyncio.run(read(generation))
    assert (generation.finish_reason, model.tokens_drawn) == ("length", 1)


def test_longer_prompt_fails_before_any_work(tokenizer: Tokenizer) -> None:
    model = FakeModel(context_window_size=4)
    with pytest.raises(ContextWindowSizeExceededError, match=r"5 tokens.*is 4.*chat_opts"):
        make(tokenizer, model)
    assert model.samplings == []


def test_empty_prompt_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigValueError):
        make(tokenizer, FakeModel(), [])


def test_stop_string_is_cut_and_never_shown(tokenizer: Tokenizer) -> None:
    generation, _, pieces = reply(
        tokenizer, "The quick brown fox jumps", stop_strings=("own f", "zebra")
    )
    assert "".join(pieces) == "The quick br"
    assert generation.finish_reason == "stop"
    assert all("o" not in piece for piece in pieces)


def test_text_like_a_stop_string_comes_with_the_end(tokenizer: Tokenizer) -> None:
    generation, _, pieces = reply(tokenizer, "The quick bro", stop_strings=("brown",))
    assert "".join(pieces) == "The quick bro"
    assert pieces[-1].endswith("bro")
    assert generation.finish_reason == "stop"


def test_reply_cut_inside_a_character_shows_a_replacement(tokenizer: Tokenizer) -> None:
    generation, _, pieces = reply(tokenizer, "a🙂", max_tokens=2)
    assert pieces == ["a", "\ufffd"]
    assert generation.finish_reason == "length"


def test_two_steps_are_in_flight_and_none_afterwards(tokenizer: Tokenizer) -> None:
    generation, model, _ = reply(tokenizer, "a b c d")
    assert model.most_in_flight == 2
    assert model.in_flight == 0
    assert model.tokens_drawn == generation.statistics.completion_tokens + 1


def test_interrupt_between_tokens_ends_with_abort(tokenizer: Tokenizer) -> None:
    model = FakeModel(tokenizer.encode("a b c d e f g h"))
    generation = make(tokenizer, model)
    model.on_step = lambda number: generation.interrupt() if number == 2 else None
    pieces = asyncio.run(read(generation))
    assert generation.finish_reason == "abort"
    assert len(pieces) == 3
    assert model.in_flight == 0


def test_interrupt_shows_text_that_was_held_back(tokenizer: Tokenizer) -> None:
    model = FakeModel(tokenizer.encode("The quick bro and more"))
    generation = make(tokenizer, model, stop_strings=("The quick brown",))
    model.on_step = lambda number: generation.interrupt() if number == 2 else None
    pieces = asyncio.run(read(generation))
    assert "".join(pieces) == tokenizer.decode(model.script[:3])


def test_interrupt_while_the_reader_pauses_draws_no_further_token(tokenizer: Tokenizer) -> None:
    async def main() -> None:
        model = FakeModel(tokenizer.encode("a b c d"))
        generation = make(tokenizer, model)
        pieces = generation.pieces()
        await anext(pieces)
        generation.interrupt()
        assert [piece async for piece in pieces] == []
        assert generation.finish_reason == "abort"
        assert generation.statistics.completion_tokens == 1

    asyncio.run(main())


def test_interrupt_in_prefill_stops_before_the_next_chunk(tokenizer: Tokenizer) -> None:
    model = FakeModel()
    generation = make(tokenizer, model, list(range(60)))
    model.on_prefill = lambda number: generation.interrupt() if number == 2 else None
    assert asyncio.run(read(generation)) == []
    assert generation.finish_reason == "abort"
    assert len(model.chunks) == 2
    assert model.tokens_drawn == 0
    assert generation.statistics.completion_tokens == 0


def test_closing_the_iterator_drains_what_is_in_flight(tokenizer: Tokenizer) -> None:
    async def main() -> None:
        model = FakeModel(tokenizer.encode("a b c d"))
        async with aclosing(make(tokenizer, model).pieces()) as pieces:
            await anext(pieces)
            assert model.in_flight == 1
        assert model.in_flight == 0

    asyncio.run(main())


def test_cancelling_the_reader_drains_what_is_in_flight(tokenizer: Tokenizer) -> None:
    async def main() -> None:
        model = FakeModel(tokenizer.encode("a b c d"))
        model.gate = asyncio.Event()
        task = asyncio.ensure_future(read(make(tokenizer, model)))
        while model.in_flight < 2:
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, model.gate.set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.in_flight == 0

    asyncio.run(main())


def test_second_cancellation_does_not_leave_steps_behind(tokenizer: Tokenizer) -> None:
    async def main() -> None:
        model = FakeModel(tokenizer.encode("a b c d"))
        model.gate = asyncio.Event()
        task = asyncio.ensure_future(read(make(tokenizer, model)))
        while model.in_flight < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.in_flight == 0

    asyncio.run(main())


def test_failed_step_fails_the_reply_and_drains_the_rest(tokenizer: Tokenizer) -> None:
    model = FakeModel(tokenizer.encode("a b c d"))
    model.fail_at = {1: DeviceLostError("gone"), 2: DeviceLostError("gone too")}
    with pytest.raises(DeviceLostError, match=r"^gone$"):
        asyncio.run(read(make(tokenizer, model)))
    assert model.in_flight == 0


def test_a_reply_without_room_fails_and_the_next_one_goes_on(tokenizer: Tokenizer) -> None:
    """The tokens that the sequence has are known, though the KV cache could not grow for more."""

    class FullModel(FakeModel):
        async def reserve(self, n_tokens: int) -> None:
            if len(self.sequence) + n_tokens > most:
                raise OutOfMemoryError("no room")
            await super().reserve(n_tokens)

    async def run(prompt: list[int]) -> None:
        params = GenerationParams(SamplingParams(0.5), max_tokens=8)
        await read(Generation(model, tokenizer, prompt, params, cached))

    script = tokenizer.encode("The quick brown fox jumps over")
    model, cached, most = FullModel(script), CachedTokens(), 6
    with pytest.raises(OutOfMemoryError, match="no room"):
        asyncio.run(run([1, 2, 3]))
    assert model.in_flight == 0
    assert model.sequence == [1, 2, 3, *script[:3]]
    assert len(cached) == 6
    most = 64
    asyncio.run(run([*model.sequence, 4]))
    assert model.kept == [0, 6]


@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_fail_raises_instead_of_the_next_token(tokenizer: Tokenizer, where: str) -> None:
    model = FakeModel(tokenizer.encode("a b c d"))
    generation = make(tokenizer, model, list(range(40)))

    def fail(_number: int) -> None:
        generation.fail(DeviceLostError("gone"))

    model.on_prefill = fail if where == "prefill" else None
    model.on_step = fail if where == "decode" else None
    with pytest.raises(DeviceLostError, match="gone"):
        asyncio.run(read(generation))
    assert model.in_flight == 0
    assert len(model.chunks) == (1 if where == "prefill" else 3)


def test_other_tasks_run_during_a_reply_whose_steps_are_all_ready(tokenizer: Tokenizer) -> None:
    """A reader that never waits long must still let a message through."""

    class ReadyModel(FakeModel):
        async def _read(self, number: int, draw: Draw) -> Draw:
            self.in_flight -= 1
            return draw

    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        model = ReadyModel(context_window_size=20000)
        counter = asyncio.ensure_future(count())
        await read(make(tokenizer, model))
        counter.cancel()
        return turns

    assert asyncio.run(main()) >= 2


def test_statistics_add_up_and_divide_safely() -> None:
    total = Statistics()
    assert total.prefill_tokens_per_s == total.decode_tokens_per_s == 0
    assert total.time_per_output_token_s == 0
    for _ in range(2):
        total.add(Statistics(10, 3, 5, 4, prefill_s=0.5, decode_s=2.0))
    assert (total.prefilled_tokens, total.cached_tokens, total.completion_tokens) == (20, 6, 10)
    assert total.prefill_tokens_per_s == 20
    assert total.decode_tokens_per_s == 2
    assert total.time_per_output_token_s == 0.5


def test_statistics_measure_prefill_and_decode(tokenizer: Tokenizer) -> None:
    generation, _, _ = reply(tokenizer, "a b c d")
    statistics = generation.statistics
    assert statistics.decode_steps == statistics.completion_tokens - 1
    assert statistics.prefill_s > 0
    assert statistics.decode_s > 0
