"""MLCEngine's streams: turns, what is given up, interruption."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.support.engines import IDS, TEXT, ask, engine_of, host_of, text_of
from tests.support.event_loop import in_clean_event_loop


@in_clean_event_loop
async def test_stream_gives_chunks_reason_and_usage() -> None:
    engine = await engine_of(host_of(), "model")
    stream = await ask(engine, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == len(IDS) + 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@in_clean_event_loop
async def test_stream_takes_its_turn_with_its_first_chunk() -> None:
    engine = await engine_of(host_of(), "model")
    never_read = await ask(engine, stream=True)
    assert await text_of(engine) == TEXT
    await never_read.aclose()


@pytest.mark.parametrize("how", ["aclose", "block", "drop", "cancel"])
@in_clean_event_loop
async def test_stream_that_is_given_up_frees_the_model(how: str) -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    stream = await ask(engine, stream=True)
    await anext(stream)
    assert host.loaded[0].in_flight == 1
    if how == "aclose":
        await stream.aclose()
        await stream.aclose()
    elif how == "block":
        async with stream:
            await anext(stream)
    elif how == "drop":
        del stream
        gc.collect()
    else:
        host.loaded[0].gate = gate = asyncio.Event()
        reader = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.001)
        reader.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await reader
        host.loaded[0].gate = None
    assert await text_of(engine) == TEXT
    assert host.loaded[0].in_flight == 0


@in_clean_event_loop
async def test_request_waiting_for_a_stream_comes_after_it() -> None:
    engine = await engine_of(host_of(), "model")
    stream = await ask(engine, stream=True)
    chunks = [await anext(stream)]
    waiting = asyncio.ensure_future(ask(engine))
    await asyncio.sleep(0.001)
    assert not waiting.done()
    chunks += [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
    assert (await waiting).choices[0].message.content == TEXT


@in_clean_event_loop
async def test_get_message_is_the_reply_so_far() -> None:
    engine = await engine_of(host_of(), "model")
    stream = await ask(engine, stream=True)
    first = await anext(stream)
    assert await engine.get_message() == first.choices[0].delta.content
    await stream.aclose()
    assert await engine.get_message() == first.choices[0].delta.content


@in_clean_event_loop
async def test_interrupt_ends_the_reply_and_not_the_next() -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    engine.interrupt_generate()  # while nothing runs, it is for nobody
    host.loaded[0].on_step = lambda n: engine.interrupt_generate() if n == 1 else None
    response = await ask(engine, n=3)
    assert [choice.finish_reason for choice in response.choices] == ["abort"]
    assert TEXT.startswith(response.choices[0].message.content)
    host.loaded[0].on_step = None
    assert await text_of(engine) == TEXT


@in_clean_event_loop
async def test_interrupt_in_prefill_gives_an_empty_reply() -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    host.loaded[0].on_prefill = lambda n: engine.interrupt_generate()
    messages = [{"role": "user", "content": "word " * 20}]
    response = await engine.chat.completions.create(messages=messages)
    assert response.choices[0].finish_reason == "abort"
    assert response.choices[0].message.content == ""
    assert len(host.loaded[0].chunks) == 1
