"""The proxy and the handler back to back: calls, settings, and what may cross."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from py_engine import errors
from py_engine.config import AppConfig, MLCEngineConfig
from tests.support.event_loop import in_event_loop
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import MODEL, PickedFile, WorkerPair, ask, kinds, text_of


@in_event_loop
async def test_a_chat_completion_has_attributes() -> None:
    engine = await WorkerPair().loaded()
    reply = await engine.chat.completions.create(
        messages=[{"role": "user", "content": "hello there"}]
    )
    assert reply.choices[0].message.content == "hello there "
    assert reply.choices[0].finish_reason == "stop"
    assert reply["model"] == MODEL
    assert await engine.get_message() == "hello there "


@in_event_loop
async def test_messages_have_webllms_fields() -> None:
    pair = WorkerPair()
    await pair.client.reload(MODEL, {"temperature": 0})
    request = ask("hi", stream=True)
    stream = await pair.client.chat_completion(request)
    await text_of(stream)
    reload, init, chunk, *_ = pair.transport.sent
    state = {"modelId": [MODEL], "chatOpts": [{"temperature": 0}]}
    assert reload == {"kind": "reload", "uuid": "id-1", "content": state}
    assert init["content"] == {
        "request": request,
        "selectedModelId": MODEL,
        "streamId": "id-2",
        **state,
    }
    assert chunk["content"] == {"streamId": "id-2"}
    end = pair.transport.received[-1]
    assert end == {"kind": "return", "uuid": pair.transport.sent[-1]["uuid"]}


@in_event_loop
async def test_local_files_cross_beside_the_message() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    files = [PickedFile("config.json", "{}"), ("sub/x.bin", PickedFile("x.bin", "01"))]
    assert await engine.register_local_files("mine", files) == "local:mine"
    assert await engine.get_message() == "mine: config.json={}, sub/x.bin=01"
    assert pair.transport.sent[-2]["content"] == {"name": "mine"}
    with pytest.raises(errors.ConfigurationFieldError, match="nothing was picked"):
        await engine.register_local_files("mine", [])


@in_event_loop
async def test_interrupt_ends_a_running_generation() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=0.001))
    engine = await pair.loaded()
    answer = asyncio.ensure_future(engine.chat_completion(ask("word " * 2000)))
    await asyncio.sleep(0.02)
    engine.interrupt_generate()
    reply = await answer
    assert reply.choices[0].finish_reason == "abort"
    assert 0 < len(reply.choices[0].message.content.split()) < 2000


@in_event_loop
async def test_other_requests_are_answered_during_a_generation() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=0.01))
    engine = await pair.loaded()
    answer = asyncio.ensure_future(engine.chat_completion(ask("word " * 20)))
    assert await engine.get_gpu_vendor() == "scripted"
    assert await engine.get_max_storage_buffer_binding_size() == 2**31
    assert "some-model" in await engine.runtime_stats_text(MODEL)
    assert not answer.done()
    await answer


@in_event_loop
async def test_reset_chat_and_settings_reach_the_engine() -> None:
    app_config = {"model_list": [{"model": "models/a/", "model_id": "a"}]}
    pair = WorkerPair(engine_config={"app_config": app_config, "log_level": "INFO"})
    engine = await pair.loaded()
    await engine.reset_chat(keep_stats=True, model_id=MODEL)
    await engine.reset_chat()
    calls = dict(pair.engine.calls[:2])
    assert calls["set_app_config"].record("a").model == "models/a/"
    assert calls["set_log_level"] == "INFO"
    resets = [given for name, given in pair.engine.calls if name == "reset_chat"]
    assert resets == [(True, MODEL), (False, None)]


@in_event_loop
async def test_engine_config_may_be_an_object_and_is_checked() -> None:
    config = MLCEngineConfig(app_config=AppConfig(()), log_level="ERROR")
    pair = WorkerPair(engine_config=config)
    await pair.loaded()
    assert ("set_log_level", "ERROR") in pair.engine.calls
    with pytest.raises(errors.ConfigValueError, match='unknown field "appConfig"'):
        WorkerPair(engine_config={"appConfig": {}})
    registry = {"logit_processor_registry": {"model": object()}}
    for wrong in (registry, MLCEngineConfig(**registry)):
        with pytest.raises(errors.ConfigValueError, match="processors run in the worker"):
            WorkerPair(engine_config=wrong)


@in_event_loop
async def test_replies_to_unknown_ids_are_ignored() -> None:
    pair = WorkerPair()
    for kind in ("return", "throw"):
        pair.transport.reply({"kind": kind, "uuid": "nobody", "content": "x"})
    engine = await pair.loaded()
    assert await engine.get_gpu_vendor() == "scripted"


@in_event_loop
async def test_what_json_cannot_carry_is_refused_before_it_is_sent() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    sent = len(pair.transport.sent)
    with pytest.raises(errors.ConfigValueError, match=r"request\.stop is of type set"):
        await engine.chat_completion(ask("hi", stop={"x"}))
    assert len(pair.transport.sent) == sent
    assert pair.client._channel._pending == {}


@in_event_loop
async def test_a_request_that_is_no_object_or_too_deep_is_refused() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for call in (engine.chat_completion, engine.completion, engine.embedding):
        with pytest.raises(errors.ConfigValueError, match="request is 5"):
            await call(5)
        with pytest.raises(errors.ConfigValueError, match=r"request\.input\[0\].*too deeply"):
            await call({"input": deep})
    assert pair.client._channel._pending == {}


@in_event_loop
async def test_completions_cross_the_border() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    reply = await engine.completions.create(prompt="once upon")
    assert (reply.object, reply.choices[0].text) == ("text_completion", "once upon ")
    assert reply.choices[0].finish_reason == "stop"
    stream = await engine.completions.create(prompt="a time", stream=True)
    texts = [choice.text async for chunk in stream for choice in chunk.choices]
    assert texts == ["a ", "time ", ""]
    with pytest.raises(errors.RangeError, match="top_p is 2"):
        await engine.completions.create(prompt="raise RangeError top_p is 2", stream=True)
    sent = kinds(pair.transport.sent)
    assert sent.count("completionNonStreaming") == 1
    assert sent.count("completionStreamInit") == 2


@in_event_loop
async def test_embeddings_cross_the_border() -> None:
    engine = await WorkerPair().loaded()
    reply = await engine.embeddings.create(input=["a", "bcd"])
    assert [item.embedding for item in reply.data] == [[1.0], [3.0]]
    assert reply.usage.prompt_tokens == 2


@in_event_loop
async def test_tokens_are_counted_in_the_worker() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    messages = [{"role": "user", "content": "one two three"}]
    assert await engine.count_tokens(messages) == 3
    assert await engine.count_tokens(messages, model_id=MODEL, tools=[{}, {}]) == 23
    assert [given for name, given in pair.engine.calls if name == "count_tokens"] == [None, MODEL]
    with pytest.raises(errors.MessageFormatError, match=r"content\.messages is missing"):
        await engine.count_tokens(None)
