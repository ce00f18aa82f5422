"""The proxy and the handler back to back: a worker that was started again."""

from __future__ import annotations

import asyncio

import pytest

from py_engine import errors
from py_engine.rpc.channel import MAX_REPEATS
from tests.support.event_loop import in_event_loop
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import MODEL, WorkerPair, ask

CONFIG = {"model_list": [{"model": "https://example.org/mine/", "model_id": MODEL}]}


@in_event_loop
async def test_a_restarted_worker_reloads_what_the_client_expects() -> None:
    pair = WorkerPair()
    await pair.client.reload(MODEL, {"temperature": 0})
    pair.restart()
    both = (pair.client.chat_completion(ask("one")), pair.client.chat_completion(ask("two")))
    replies = await asyncio.gather(*both)
    assert [reply.choices[0].message.content for reply in replies] == ["one ", "two "]
    assert [call for call in pair.engine.calls if call[0] == "reload"] == [
        ("reload", ([MODEL], [{"temperature": 0}]))
    ]


@in_event_loop
async def test_a_restarted_worker_gets_the_app_config_again() -> None:
    pair = WorkerPair(engine_config={"app_config": CONFIG})
    await pair.loaded()
    pair.restart()
    await pair.client.count_tokens([{"role": "user", "content": "hi"}])
    assert [name for name, _ in pair.engine.calls] == ["set_app_config", "reload", "count_tokens"]
    assert pair.engine.calls[0][1].model_list[0].model == "https://example.org/mine/"


class SlowlyForwarding(ScriptedEngine):
    async def forward_tokens_and_sample(self, input_ids: list[int], is_prefill: bool) -> int:
        await asyncio.sleep(60)
        return 1


@in_event_loop
async def test_lost_requests_are_repeated_or_fail_when_the_worker_was_restarted() -> None:
    pair = WorkerPair(SlowlyForwarding())
    client = await pair.loaded()
    pair.engine.seconds_per_word = 60
    answer = asyncio.ensure_future(client.chat_completion(ask("one two")))
    token = asyncio.ensure_future(client.forward_tokens_and_sample([1], True))
    stream = await client.chat_completion(ask("three", stream=True))
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    pending = client._channel.pending
    pair.restart()
    beat = await pair.heartbeat(pending)
    assert sorted(beat["lost"]) == sorted(pending)
    client._channel.restarted(beat["lost"])
    assert (await answer).choices[0].message.content == "one two "
    assert (await first).choices[0].delta.content == "three "
    with pytest.raises(errors.WorkerRestartedError, match="forwardTokensAndSample"):
        await token
    assert (await pair.heartbeat(client._channel.pending))["lost"] == []


@in_event_loop
async def test_a_stream_that_has_begun_ends_when_the_worker_was_restarted() -> None:
    pair = WorkerPair()
    client = await pair.loaded()
    stream = await client.chat_completion(ask("one two three", stream=True))
    await anext(stream)
    pair.restart()
    with pytest.raises(errors.WorkerRestartedError, match="during this stream"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert (await client.chat_completion(ask("next"))).choices[0].message.content == "next "


@in_event_loop
async def test_a_request_that_ends_every_worker_is_not_repeated_for_ever() -> None:
    pair = WorkerPair(ScriptedEngine())
    client = await pair.loaded()
    pair.engine.seconds_per_word = 60
    answer = asyncio.ensure_future(client.chat_completion(ask("one")))
    await asyncio.sleep(0.01)
    for _ in range(MAX_REPEATS + 1):
        assert not answer.done()
        client._channel.restarted(None)
        await asyncio.sleep(0.01)
    with pytest.raises(errors.WorkerRestartedError):
        await answer
