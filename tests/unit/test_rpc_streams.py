"""The proxy and the handler back to back: streams, read, left and failing."""

from __future__ import annotations

import asyncio
import gc

import pytest

from py_engine import errors
from tests.support.event_loop import in_event_loop
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import WorkerPair, ask, kinds, text_of


@in_event_loop
async def test_a_stream_pulls_one_chunk_per_request() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    pair.transport.sent.clear()
    stream = await engine.chat_completion(ask("one two", stream=True))
    assert await text_of(stream) == "one two "
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    chunk_kind = "completionStreamNextChunk"  # two words, the finish reason, the end
    assert kinds(pair.transport.sent) == ["chatCompletionStreamInit", *[chunk_kind] * 4]
    await stream.aclose()
    assert kinds(pair.transport.sent)[-1] == chunk_kind  # nothing to close any more


@in_event_loop
async def test_two_streams_are_kept_apart() -> None:
    engine = ScriptedEngine()
    engine._turn = asyncio.Semaphore(2)  # type: ignore[assignment]
    client = await WorkerPair(engine).loaded()
    first = await client.chat_completion(ask("a b c", stream=True))
    second = await client.chat_completion(ask("x y z", stream=True))
    texts = await asyncio.gather(text_of(first), text_of(second))
    assert texts == ["a b c ", "x y z "]


@in_event_loop
async def test_a_dropped_stream_frees_the_model() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    async for _chunk in await engine.chat_completion(ask("a b c", stream=True)):
        break
    gc.collect()
    assert kinds(pair.transport.sent)[-1] == "completionStreamReturn"
    reply = await engine.chat_completion(ask("next"))
    assert reply.choices[0].message.content == "next "
    assert pair.engine.finished == 2


@in_event_loop
async def test_a_stream_is_closed_by_async_with_and_by_aclose() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    async with await engine.chat_completion(ask("a b", stream=True)) as stream:
        await anext(stream)
    assert pair.engine.finished == 1
    stream = await engine.chat_completion(ask("a b", stream=True))
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    assert pair.engine.finished == 2
    assert kinds(pair.transport.sent).count("completionStreamReturn") == 2
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@in_event_loop
async def test_closing_a_stream_ends_a_reader_that_waits() -> None:
    pair = WorkerPair()
    await pair.loaded()
    pair.engine.seconds_per_word = 60
    stream = await pair.client.chat_completion(ask("slow", stream=True))
    reader = asyncio.ensure_future(text_of(stream))
    await asyncio.sleep(0.01)
    await stream.aclose()
    assert await reader == ""
    assert pair.engine.finished == 1


@in_event_loop
async def test_a_completion_stream_that_is_left_frees_the_model() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=0.01))
    engine = await pair.loaded()
    async with await engine.completions.create(prompt="one two three", stream=True) as stream:
        async for chunk in stream:
            assert chunk.choices[0].text == "one "
            break
    assert pair.engine.finished == 1
    assert (await engine.completions.create(prompt="next")).choices[0].text == "next "


@in_event_loop
async def test_an_error_in_a_stream_ends_it() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    stream = await engine.chat_completion(ask("fine BREAK never", stream=True))
    assert (await anext(stream)).choices[0].delta.content == "fine "
    with pytest.raises(errors.DeviceLostError):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert len(pair.handler.owner.streams) == 0


@in_event_loop
async def test_unloading_fails_the_open_streams() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=0.01))
    engine = await pair.loaded()
    stream = await engine.chat_completion(ask("a b c d e f", stream=True))
    reader = asyncio.ensure_future(text_of(stream))
    await asyncio.sleep(0.02)
    await engine.unload()
    with pytest.raises(errors.ModelNotLoadedError, match="unloaded during this stream"):
        await reader
    assert pair.engine.finished == 1


@in_event_loop
async def test_a_stream_dropped_after_the_workers_death_is_silent() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    stream = await engine.chat_completion(ask("a b c", stream=True))
    await anext(stream)
    engine.terminate()
    sent = len(pair.transport.sent)
    del stream
    gc.collect()
    assert len(pair.transport.sent) == sent
