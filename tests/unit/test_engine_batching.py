"""MLCEngine with a model of several sequences: requests and choices at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from py_engine.errors import ConfigurationFieldError, ModelNotLoadedError, OutOfMemoryError
from tests.support.engines import IDS, TEXT, HostedEngine, ask, engine_of, host_of
from tests.support.event_loop import in_clean_event_loop
from tests.support.fake_model import FakeModel


async def batching_engine(most_sequences: int = 8) -> tuple[HostedEngine, FakeModel]:
    host = host_of()
    engine = await engine_of(host, "model")
    host.loaded[0].most_sequences = most_sequences
    return engine, host.loaded[0]


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


@in_clean_event_loop
async def test_a_request_need_not_wait_for_a_stream_that_nobody_reads() -> None:
    engine, model = await batching_engine()
    stream = await ask(engine, stream=True)
    first = await anext(stream)
    response = await ask(engine)
    assert response.choices[0].message.content == TEXT
    assert len(model.forks) == 1
    rest = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in (first, *rest))
    assert said == TEXT


@in_clean_event_loop
async def test_requests_beyond_the_most_wait_in_their_order() -> None:
    engine, model = await batching_engine()
    model.gate = gate = asyncio.Event()
    done: list[int] = []

    async def request(number: int) -> None:
        await ask(engine, max_tokens=3)
        done.append(number)

    asked = [asyncio.ensure_future(request(number)) for number in range(7)]
    await until(lambda: len(model.forks) == 3)
    await asyncio.sleep(0.001)
    assert len(model.forks) == 3 and not done  # 4 at once, where nothing else is said
    gate.set()
    await asyncio.gather(*asked)
    assert done[4:] == [4, 5, 6] and sorted(done[:4]) == [0, 1, 2, 3]


@pytest.mark.parametrize(("most", "n_forks"), [(1, 0), (2, 1), (8, 4)])
@in_clean_event_loop
async def test_max_num_sequence_says_how_many(most: int, n_forks: int) -> None:
    host = host_of()
    engine = await engine_of(host)
    await engine.reload("model", {"max_num_sequence": most})
    host.loaded[0].most_sequences = 8
    replies = await asyncio.gather(*(ask(engine) for _ in range(5)))
    assert [reply.choices[0].message.content for reply in replies] == [TEXT] * 5
    assert len(host.loaded[0].forks) == n_forks


@pytest.mark.parametrize("most", [0, 9, 2.5, "two"])
@in_clean_event_loop
async def test_max_num_sequence_is_checked(most: Any) -> None:
    engine = await engine_of(host_of())
    with pytest.raises(ConfigurationFieldError, match="max_num_sequence"):
        await engine.reload("model", {"max_num_sequence": most})


@in_clean_event_loop
async def test_choices_are_generated_together_from_one_prefill() -> None:
    engine, model = await batching_engine()
    messages = [{"role": "user", "content": "word " * 15}]
    response = await engine.chat.completions.create(messages=messages, n=3)
    assert [choice.index for choice in response.choices] == [0, 1, 2]
    assert {choice.message.content for choice in response.choices} == {TEXT}
    assert len(model.forks) == 2
    # The last token is computed again, for its logits.
    assert [sum(map(len, fork.chunks)) for fork in model.forks] == [1, 1]
    assert response.usage.prompt_tokens == sum(map(len, model.chunks))
    assert response.usage.completion_tokens == 3 * (len(IDS) + 1)


@in_clean_event_loop
async def test_a_stream_of_several_choices_has_each_in_its_order() -> None:
    engine, _ = await batching_engine()
    texts, reasons, order = ["", ""], ["", ""], []
    async for chunk in await ask(engine, n=2, stream=True):
        [choice] = chunk.choices
        assert not reasons[choice.index]
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] = choice.finish_reason or ""
        order.append(choice.index)
    assert texts == [TEXT] * 2 and reasons == ["stop"] * 2
    assert order != sorted(order)


@pytest.mark.parametrize("n", [2, 6])
@in_clean_event_loop
async def test_interruption_ends_the_choices_at_hand_and_leaves_out_the_rest(n: int) -> None:
    engine, model = await batching_engine()
    model.script = IDS * 1000
    asked = asyncio.ensure_future(ask(engine, n=n))
    await until(lambda: all(each.tokens_drawn > 2 for each in (model, *model.forks[: n - 1])))
    await until(lambda: len(model.forks) == min(n, 4) - 1)
    engine.interrupt_generate()
    response = await asked
    assert [choice.finish_reason for choice in response.choices] == ["abort"] * min(n, 4)
    model.script = [*IDS, 500]
    for fork in model.forks:
        fork.script = model.script
    assert (await ask(engine)).choices[0].message.content == TEXT


@in_clean_event_loop
async def test_a_choice_that_fails_ends_the_others() -> None:
    engine, model = await batching_engine()
    model.fail_at = {3: OutOfMemoryError("the cache did not grow")}
    with pytest.raises(OutOfMemoryError, match="did not grow"):
        await ask(engine, n=3)
    model.fail_at.clear()
    assert all(each.in_flight == 0 for each in (model, *model.forks))
    assert (await ask(engine, n=3)).choices[2].message.content == TEXT


@in_clean_event_loop
async def test_a_closed_stream_of_choices_frees_all_sequences() -> None:
    engine, model = await batching_engine()
    stream = await ask(engine, n=3, stream=True)
    for _ in range(8):
        await anext(stream)
    await stream.aclose()
    assert all(each.in_flight == 0 for each in (model, *model.forks))
    assert (await ask(engine, n=3)).choices[2].message.content == TEXT


@in_clean_event_loop
async def test_where_memory_ends_requests_wait_for_each_other() -> None:
    engine, model = await batching_engine()

    async def full() -> FakeModel:
        raise OutOfMemoryError("no room for another sequence")

    model.fork = full  # type: ignore[method-assign, assignment]
    replies = await asyncio.gather(*(ask(engine) for _ in range(3)))
    assert [reply.choices[0].message.content for reply in replies] == [TEXT] * 3


class Processor:
    """Counts the replies at hand; it could not follow two."""

    def __init__(self) -> None:
        self.resets = 0

    def process_logits(self, logits: Any) -> Any:
        return logits

    def process_sampled_token(self, token_id: int) -> None:
        pass

    def reset_state(self) -> None:
        self.resets += 1


@in_clean_event_loop
async def test_a_logit_processor_sees_one_reply_after_another() -> None:
    engine, model = await batching_engine()
    processor = Processor()
    engine.set_logit_processor_registry({"model": processor})
    await engine.reload("model")
    model = engine.host.loaded[-1]
    model.most_sequences = 8
    stream = await ask(engine, stream=True)
    await anext(stream)
    waiting = asyncio.ensure_future(ask(engine, n=2))
    await asyncio.sleep(0.001)
    assert processor.resets == 1 and not model.forks
    await stream.aclose()
    await waiting
    assert processor.resets == 3 and not model.forks


@in_clean_event_loop
async def test_raw_tokens_wait_until_all_replies_have_ended() -> None:
    engine, _ = await batching_engine()
    streams = [await ask(engine, stream=True) for _ in range(2)]
    for stream in streams:
        await anext(stream)
    forwarding = asyncio.ensure_future(engine.forward_tokens_and_sample(IDS, is_prefill=True))
    behind = asyncio.ensure_future(ask(engine))
    for stream in streams:
        await asyncio.sleep(0.001)
        assert not forwarding.done() and not behind.done()
        await stream.aclose()
    await forwarding
    assert (await behind).choices[0].message.content == TEXT


@in_clean_event_loop
async def test_unloading_ends_what_runs_and_what_waits() -> None:
    engine, model = await batching_engine()
    model.script = IDS * 1000
    asked = [asyncio.ensure_future(ask(engine)) for _ in range(6)]
    await until(lambda: len(model.forks) == 3 and model.forks[2].tokens_drawn)
    await engine.unload()
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in errors] == [ModelNotLoadedError] * 6
    assert all(each.is_destroyed for each in (model, *model.forks))


@in_clean_event_loop
async def test_the_next_turn_of_a_chat_finds_the_sequence_of_the_last() -> None:
    engine, model = await batching_engine()
    chats = [[{"role": "user", "content": f"{word} " * 10}] for word in ("one", "two")]
    replies = await asyncio.gather(
        *(engine.chat.completions.create(messages=chat) for chat in chats)
    )
    for chat, reply in reversed(list(zip(chats, replies, strict=True))):
        chat += [
            {"role": "assistant", "content": reply.choices[0].message.content},
            {"role": "user", "content": "and?"},
        ]
        response = await engine.chat.completions.create(messages=chat)
        details = response.usage.prompt_tokens_details
        assert details.cached_tokens >= reply.usage.prompt_tokens - 1
    assert len(model.forks) == 1


@in_clean_event_loop
async def test_reset_forgets_all_sequences() -> None:
    engine, model = await batching_engine()
    await asyncio.gather(*(ask(engine) for _ in range(3)))
    await engine.reset_chat()
    await ask(engine)
    assert model.kept[-1] == 0 and len(model.kept) == 4


@in_clean_event_loop
async def test_a_sequence_that_cannot_grow_gets_the_memory_of_idle_ones() -> None:
    engine, model = await batching_engine()
    await asyncio.gather(*(ask(engine) for _ in range(3)))
    busy = await ask(engine, stream=True)
    await anext(busy)
    for each in (model, *model.forks):
        each.is_full = each.in_flight > 0
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in busy])
    assert TEXT.endswith(text)
    idle = [fork for fork in model.forks if fork.is_destroyed]
    assert len(idle) >= 1 and not model.is_destroyed
    replies = await asyncio.gather(*(ask(engine) for _ in range(3)))
    assert [reply.choices[0].message.content for reply in replies] == [TEXT] * 3
