"""The proxy and the handler wired back to back: calls, streams, errors, interruption, death."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from py_engine import errors
from py_engine.config import AppConfig, MLCEngineConfig
from py_engine.rpc.channel import MAX_REPEATS
from py_engine.rpc.client import WebWorkerMLCEngine, create_web_worker_mlc_engine
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.rpc.loads import LoadState
from py_engine.rpc.served_client import ServedClient
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import MODEL, PickedFile, WorkerPair, ask, text_of


def in_event_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), timeout=5))

    return run


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message["kind"] for message in messages]


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
async def test_a_wrong_app_config_is_told_to_the_next_reload() -> None:
    pair = WorkerPair(engine_config={"app_config": {"cacheBackend": "disk"}})
    for _ in range(2):
        with pytest.raises(errors.ConfigurationFieldError, match="cacheBackend is 'disk'"):
            await pair.client.reload(MODEL)
    pair.client.set_app_config({"model_list": []})
    await pair.client.reload(MODEL)
    assert pair.engine.loaded == [MODEL]


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
async def test_a_cancelled_reload_ends_the_load_in_the_worker() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=60))
    loading = asyncio.ensure_future(pair.client.reload(MODEL))
    await asyncio.sleep(0.01)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await asyncio.sleep(0.01)
    assert kinds(pair.transport.sent) == ["reload", "unload"]
    assert pair.engine.calls[-1] == ("unload", None)
    assert pair.client.model_id is None


@in_event_loop
async def test_a_cancelled_reload_leaves_a_newer_one_alone() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=0.01))
    first = asyncio.ensure_future(pair.client.reload("old"))
    await asyncio.sleep(0.005)
    second = asyncio.ensure_future(pair.client.reload(MODEL))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert "unload" not in kinds(pair.transport.sent)
    assert pair.client.model_id == [MODEL]


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
async def test_a_cancelled_request_is_given_up_by_the_worker() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=0.01))
    client = await pair.loaded()
    request = asyncio.ensure_future(client.chat_completion(ask("word " * 1000)))
    await asyncio.sleep(0.05)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    response = await asyncio.wait_for(client.chat_completion(ask("next")), 1)
    assert response.choices[0].message.content == "next "
    assert (pair.engine.finished, pair.handler.owner.requests) == (2, {})


@in_event_loop
async def test_errors_arrive_with_class_message_fields_and_traceback() -> None:
    engine = await WorkerPair().loaded()
    with pytest.raises(errors.ContextWindowSizeExceededError, match=r"^too long$") as caught:
        await engine.chat_completion(ask("raise ContextWindowSizeExceededError too long"))
    assert caught.value.model_id == "some-model"  # type: ignore[attr-defined]
    assert "scripted_engine.py" in caught.value.remote_traceback
    with pytest.raises(errors.RemoteError, match="ZeroDivisionError: oh") as foreign:
        await engine.chat_completion(ask("raise ZeroDivisionError oh"))
    assert foreign.value.name == "ZeroDivisionError"


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
async def test_progress_reports_reach_the_callback() -> None:
    pair = WorkerPair()
    reports: list[Any] = []
    pair.client.set_init_progress_callback(reports.append)
    await pair.client.reload(MODEL)
    assert [report.progress for report in reports] == [0, 0.5, 1]
    assert reports[1].timeElapsed == 0.5
    assert reports[1].loadedBytes == 4_000_000
    assert pair.client.get_init_progress_callback() == reports.append


@in_event_loop
async def test_a_callback_that_fails_does_not_stop_the_loading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair = WorkerPair()
    pair.client.set_init_progress_callback(lambda report: report.no_such_field)
    await pair.client.reload(MODEL)
    assert pair.client.model_id == [MODEL]
    assert "init_progress_callback failed" in caplog.text


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
async def test_a_request_before_loading_names_the_remedy() -> None:
    pair = WorkerPair()
    with pytest.raises(errors.WorkerEngineModelNotLoadedError, match=r"engine\.reload"):
        await pair.client.chat_completion(ask("hi"))
    await pair.loaded()
    await pair.client.unload()
    with pytest.raises(errors.WorkerEngineModelNotLoadedError):
        await pair.client.embedding({"input": "hi"})


@in_event_loop
async def test_models_are_selected_on_the_client() -> None:
    pair = WorkerPair()
    await pair.client.reload(["a", "b"])
    with pytest.raises(errors.UnclearModelToUseError, match='"a", "b"'):
        await pair.client.chat_completion(ask("hi"))
    with pytest.raises(errors.SpecifiedModelNotFoundError, match='"c" is not loaded'):
        await pair.client.chat_completion(ask("hi", model="c"))
    await pair.client.chat_completion(ask("hi", model="b"))
    assert "chatCompletionNonStreaming" in kinds(pair.transport.sent)


@in_event_loop
async def test_a_failed_reload_leaves_nothing_loaded() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    with pytest.raises(errors.ModelNotFoundError):
        await engine.reload("missing")
    assert engine.model_id is None
    assert pair.handler.loaded is None
    await engine.reload(MODEL)
    await engine.chat_completion(ask("usable again"))


@in_event_loop
async def test_unload_during_reload_wins() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=0.01))
    loading = asyncio.ensure_future(pair.client.reload(MODEL))
    await asyncio.sleep(0.005)
    await pair.client.unload()
    await loading
    assert pair.client.model_id is None
    assert pair.handler.loaded is None


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


CONFIG = {"model_list": [{"model": "https://example.org/mine/", "model_id": MODEL}]}


@in_event_loop
async def test_reload_if_unmatched_compares_ids_options_and_the_app_config() -> None:
    engine = ScriptedEngine()
    handler = WebWorkerMLCEngineHandler(engine, lambda message: None)

    async def reloads(*expected: Any) -> bool:
        before = len(engine.calls)
        await handler.reload_if_unmatched(*expected)
        return "reload" in [name for name, _ in engine.calls[before:]]

    assert await reloads([MODEL])
    assert not await reloads([MODEL])
    assert not await reloads([MODEL], [])
    assert not await reloads([MODEL], [{}])
    assert await reloads([MODEL], [{"temperature": 0}])
    assert not await reloads([MODEL], [{"temperature": 0}])
    assert await reloads([MODEL], [{"temperature": 1}])
    assert await reloads([MODEL, "b"], [{"temperature": 1}, {}])
    assert not await reloads(None)
    assert await reloads([MODEL], None, CONFIG)
    assert not await reloads([MODEL], None, {**CONFIG})
    assert await reloads([MODEL])


@in_event_loop
async def test_a_restarted_worker_gets_the_app_config_again() -> None:
    pair = WorkerPair(engine_config={"app_config": CONFIG})
    await pair.loaded()
    pair.restart()
    await pair.client.count_tokens([{"role": "user", "content": "hi"}])
    assert [name for name, _ in pair.engine.calls] == ["set_app_config", "reload", "count_tokens"]
    assert pair.engine.calls[0][1].model_list[0].model == "https://example.org/mine/"


@in_event_loop
async def test_clients_of_one_worker_have_each_their_app_config() -> None:
    pair = WorkerPair(engine_config={"app_config": CONFIG})
    await pair.loaded()
    other = ServedClient(lambda message: None)
    for app_config in (CONFIG, None):
        content = {"modelId": [MODEL], "appConfig": app_config}
        await pair.handler.on_message({"kind": "reload", "uuid": "x", "content": content}, other)
    configs = [value for name, value in pair.engine.calls if name == "set_app_config"]
    assert [config and config.model_list[0].model_id for config in configs] == [MODEL, None]


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


@in_event_loop
async def test_a_client_that_is_gone_frees_the_model() -> None:
    pair = WorkerPair()
    await pair.loaded()
    pair.engine.seconds_per_word = 60
    gone: list[dict[str, Any]] = []
    other = ServedClient(gone.append)
    content = {"request": ask("a b", stream=True), "streamId": "s"}
    for uuid, kind in (("1", "chatCompletionStreamInit"), ("2", "completionStreamNextChunk")):
        pair.handler.on_message({"kind": kind, "uuid": uuid, "content": content}, other)
    await asyncio.sleep(0.01)
    assert list(other.tasks) == ["2"]
    await other.close()
    pair.engine.seconds_per_word = 0
    assert (pair.engine.finished, len(other.streams), other.tasks) == (1, 0, {})
    assert (await pair.client.chat_completion(ask("b"))).choices[0].message.content == "b "
    assert [message["uuid"] for message in gone] == ["1"]


class SharedHandler(WebWorkerMLCEngineHandler):
    keeps_loaded_models = True


@in_event_loop
async def test_a_shared_worker_loads_what_is_there_only_once() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=0.001), handler_class=SharedHandler)
    told: list[dict[str, Any]] = []
    other = ServedClient(told.append)
    reload = {"kind": "reload", "uuid": "x", "content": {"modelId": [MODEL]}}
    first = asyncio.ensure_future(pair.client.reload(MODEL))
    await asyncio.sleep(0.001)
    await pair.handler.on_message(reload, other)  # while it loads for the other one
    await first
    assert told[-1] == {"kind": "return", "uuid": "x", "content": None}
    assert told[-2]["content"]["progress"] == 1
    await pair.handler.on_message({**reload, "content": {"modelId": MODEL}}, other)
    assert [name for name, _ in pair.engine.calls] == ["reload"]
    assert told[-2]["content"]["text"] == "Finish loading on WebGPU - scripted"
    await pair.handler.on_message({**reload, "content": {"modelId": ["b"]}}, other)
    assert [name for name, _ in pair.engine.calls] == ["reload", "reload"]


@in_event_loop
async def test_a_worker_that_dies_rejects_what_is_pending_and_what_comes() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=60))
    loading = asyncio.ensure_future(pair.client.reload(MODEL))
    await asyncio.sleep(0.01)
    pair.transport.fail("The worker failed: out of memory", True)
    with pytest.raises(errors.WorkerFailedError, match="out of memory"):
        await loading
    with pytest.raises(errors.WorkerFailedError, match="out of memory"):
        await pair.client.get_gpu_vendor()


@in_event_loop
async def test_an_error_event_of_a_living_worker_rejects_only_what_is_pending() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    pair.engine.seconds_per_word = 60
    answer = asyncio.ensure_future(engine.chat_completion(ask("hi")))
    await asyncio.sleep(0.01)
    pair.transport.fail("uncaught exception", False)
    with pytest.raises(errors.WorkerFailedError):
        await answer
    assert await engine.get_gpu_vendor() == "scripted"


@in_event_loop
async def test_what_webllms_handler_does_not_know_ends_only_its_own_request() -> None:
    pair = WorkerPair()
    engine = await pair.loaded()
    pair.engine.seconds_per_word = 0.01
    answer = asyncio.ensure_future(engine.chat_completion(ask("hi")))
    counting = asyncio.ensure_future(engine.count_tokens(ask("hi")["messages"]))
    await asyncio.sleep(0)
    error = "Uncaught UnknownMessageKindError: Unknown message kind, msg: [countTokens] [object]"
    pair.transport.fail(f"The worker failed: {error}", True)
    with pytest.raises(errors.UnknownMessageKindError, match="countTokens"):
        await counting
    assert (await answer).choices[0].message.content == "hi "
    assert await engine.get_gpu_vendor() == "scripted"


@in_event_loop
async def test_a_failure_to_boot_has_its_class_and_reason() -> None:
    pair = WorkerPair()
    pair.handler.on_message = lambda event: None  # type: ignore[method-assign]
    pair.transport._deliver = pair.handler.on_message
    loading = asyncio.ensure_future(pair.client.reload(MODEL))
    await asyncio.sleep(0)
    error = {"name": "WebGPUNotAvailableError", "message": "no WebGPU here"}
    pair.transport.reply({"kind": "throw", "uuid": "", "content": "x", "error": error})
    with pytest.raises(errors.WebGPUNotAvailableError, match="no WebGPU here"):
        await loading
    with pytest.raises(errors.WebGPUNotAvailableError):
        await pair.client.unload()


@in_event_loop
async def test_terminate_rejects_pending_and_later_requests() -> None:
    pair = WorkerPair(ScriptedEngine(seconds_per_word=60))
    loading = asyncio.ensure_future(pair.client.reload(MODEL))
    await asyncio.sleep(0.01)
    pair.client.terminate()
    pair.client.terminate()
    with pytest.raises(errors.WorkerFailedError, match="terminate"):
        await loading
    with pytest.raises(errors.WorkerFailedError):
        pair.client.interrupt_generate()
    assert pair.transport.is_closed


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


@in_event_loop
async def test_the_factory_loads_the_model() -> None:
    pair = WorkerPair()
    engine = await create_web_worker_mlc_engine(pair.transport, MODEL, None, {"top_p": 0.5})
    assert isinstance(engine, WebWorkerMLCEngine)
    assert pair.handler.loaded == LoadState([MODEL], [{"top_p": 0.5}])
