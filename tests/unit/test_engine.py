"""MLCEngine over scripted models: loading, answering, stopping, failing, and going on after it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from py_engine.api.objects import ApiObject, plain
from py_engine.config import AppConfig, InitProgressReport, MLCEngineConfig, ModelRecord
from py_engine.engine import LOG_LEVELS, MLCEngine, create_mlc_engine
from py_engine.errors import (
    ConfigurationFieldError,
    ConfigValueError,
    ContextWindowSizeExceededError,
    DeviceLostError,
    MissingFileError,
    MLCError,
    ModelFileFormatError,
    ModelNotFoundError,
    ModelNotLoadedError,
    OutOfMemoryError,
    ReloadArgumentSizeUnmatchedError,
    ReloadModelIdNotUniqueError,
    SpecifiedModelNotFoundError,
    UnclearModelToUseError,
    UnknownArchitectureError,
    UnsupportedFieldsError,
    WebGPUNotAvailableError,
)
from py_engine.models.base import SamplingParams
from py_engine.tokenizer import tokenizer_from_json
from tests.support.fake_host import END, FakeHost, model_files
from tests.support.fake_model import FakeModel
from tests.support.tokenizer_files import tokenizer_json

MESSAGES = [{"role": "user", "content": "Hi"}]
TEXT = "The quick brown fox jumps over the lazy dog"


def ids_of(text: str) -> list[int]:
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2"))).encode(text)


IDS = ids_of(TEXT)
PROMPT_IDS = ids_of("U: Hi\n") + ids_of("A: ")


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; nothing may be left behind in the loop."""

    async def main() -> None:
        await asyncio.wait_for(test, 10)
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert all("_watch" in repr(task) for task in left), left

    asyncio.run(main())


def host_of(*model_ids: str) -> FakeHost:
    """Return a host of models that say TEXT."""
    host = FakeHost(*model_ids)
    host.scripts = {model_id: [*IDS, END] for model_id in host.files}
    return host


async def engine_of(host: FakeHost, *load: str, **config: Any) -> MLCEngine:
    engine = MLCEngine({"app_config": host.app_config, **config}, host=host)
    if load:
        await engine.reload(load[0] if len(load) == 1 else list(load))
    return engine


async def ask(engine: MLCEngine, **fields: Any) -> Any:
    return await engine.chat.completions.create(messages=MESSAGES, **fields)


async def text_of(engine: MLCEngine, **fields: Any) -> str:
    return str((await ask(engine, **fields)).choices[0].message.content)


# Answers


def test_answers_with_text_reason_and_usage() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        response = await ask(engine)
        assert response.choices[0].message.content == TEXT
        assert response.choices[0].finish_reason == "stop"
        assert response.model == "model"
        assert host.loaded[0].chunks == [PROMPT_IDS]
        assert response.usage.prompt_tokens == len(PROMPT_IDS)
        assert response.usage.completion_tokens == len(IDS) + 1
        assert response.usage.extra.e2e_latency_s > 0
        assert await engine.get_message() == TEXT

    run(test())


def test_sampling_comes_from_the_request_and_else_from_the_model() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        await ask(engine)
        await ask(engine)
        await ask(engine, temperature=0, top_p=0.5, seed=-7)
        first, second, third = host.loaded[0].samplings
        assert (first.temperature, first.top_p) == (0.7, 0.95)
        assert first.seed != second.seed
        assert third == SamplingParams(0.0, 0.5, 2**64 - 7)

    run(test())


def test_chat_opts_override_the_models_configuration() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host)
        await engine.reload("model", {"temperature": 0.1, "context_window_size": 32})
        await ask(engine)
        assert host.loaded[0].samplings[0].temperature == 0.1
        assert host.loaded[0].context_window_size == 32

    run(test())


def test_stop_of_the_request_is_added_to_the_models() -> None:
    async def test() -> None:
        engine = await engine_of(host_of(), "model")
        assert await text_of(engine, stop="fox") == "The quick brown "

    run(test())


def test_max_tokens_ends_with_length() -> None:
    async def test() -> None:
        engine = await engine_of(host_of(), "model")
        response = await ask(engine, max_tokens=3)
        assert response.choices[0].finish_reason == "length"
        assert response.usage.completion_tokens == 3

    run(test())


def test_choices_have_seeds_of_their_own_and_count_the_prompt_once() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        one = await ask(engine)
        three = await ask(engine, n=3, seed=5)
        assert [choice.index for choice in three.choices] == [0, 1, 2]
        assert three.usage.prompt_tokens == one.usage.prompt_tokens
        assert three.usage.completion_tokens == 3 * one.usage.completion_tokens
        assert [s.seed for s in host.loaded[0].samplings[1:]] == [5, 6, 7]

    run(test())


def test_chat_completion_takes_a_dict_or_an_object() -> None:
    async def test() -> None:
        engine = await engine_of(host_of(), "model")
        for request in ({"messages": MESSAGES}, ApiObject({"messages": MESSAGES})):
            response = await engine.chat_completion(request)
            assert isinstance(response, ApiObject)
            assert response.choices[0].message.content == TEXT

    run(test())


def test_request_errors_leave_the_engine_usable() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        with pytest.raises(ConfigValueError):
            await ask(engine, temperature="x")
        with pytest.raises(UnsupportedFieldsError):
            await ask(engine, audio={"voice": "alloy"})
        with pytest.raises(ContextWindowSizeExceededError):
            await engine.chat_completion({"messages": [{"role": "user", "content": "x" * 999}]})
        with pytest.raises(ContextWindowSizeExceededError):
            long = [{"role": "user", "content": "x" * 999}]
            await engine.chat_completion({"messages": long, "stream": True})
        assert host.loaded[0].samplings == []
        assert await text_of(engine) == TEXT

    run(test())


def test_unknown_fields_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        engine = await engine_of(host_of(), "model")
        await ask(engine, temprature=1)
        await ask(engine, temprature=1, topp=1)
        assert [r.getMessage().split(": ")[-1] for r in caplog.records] == ["temprature", "topp"]

    run(test())


# Streams


def test_stream_gives_chunks_reason_and_usage() -> None:
    async def test() -> None:
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

    run(test())


def test_stream_takes_its_turn_with_its_first_chunk() -> None:
    async def test() -> None:
        engine = await engine_of(host_of(), "model")
        never_read = await ask(engine, stream=True)
        assert await text_of(engine) == TEXT
        await never_read.aclose()

    run(test())


@pytest.mark.parametrize("how", ["aclose", "block", "drop", "cancel"])
def test_stream_that_is_given_up_frees_the_model(how: str) -> None:
    async def test() -> None:
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

    run(test())


def test_request_waiting_for_a_stream_comes_after_it() -> None:
    async def test() -> None:
        engine = await engine_of(host_of(), "model")
        stream = await ask(engine, stream=True)
        chunks = [await anext(stream)]
        waiting = asyncio.ensure_future(ask(engine))
        await asyncio.sleep(0.001)
        assert not waiting.done()
        chunks += [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
        assert (await waiting).choices[0].message.content == TEXT

    run(test())


def test_get_message_is_the_reply_so_far() -> None:
    async def test() -> None:
        engine = await engine_of(host_of(), "model")
        stream = await ask(engine, stream=True)
        first = await anext(stream)
        assert await engine.get_message() == first.choices[0].delta.content
        await stream.aclose()
        assert await engine.get_message() == first.choices[0].delta.content

    run(test())


# Interruption


def test_interrupt_ends_the_reply_and_not_the_next() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        engine.interrupt_generate()  # while nothing runs, it is for nobody
        host.loaded[0].on_step = lambda n: engine.interrupt_generate() if n == 1 else None
        response = await ask(engine, n=3)
        assert [choice.finish_reason for choice in response.choices] == ["abort"]
        assert TEXT.startswith(response.choices[0].message.content)
        host.loaded[0].on_step = None
        assert await text_of(engine) == TEXT

    run(test())


def test_interrupt_in_prefill_gives_an_empty_reply() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        host.loaded[0].on_prefill = lambda n: engine.interrupt_generate()
        messages = [{"role": "user", "content": "word " * 20}]
        response = await engine.chat.completions.create(messages=messages)
        assert response.choices[0].finish_reason == "abort"
        assert response.choices[0].message.content == ""
        assert len(host.loaded[0].chunks) == 1

    run(test())


# Several models


def test_two_models_answer_at_the_same_time() -> None:
    async def test() -> None:
        host = host_of("a", "b")
        engine = await engine_of(host, "a", "b")
        gate = host.loaded[0].gate = asyncio.Event()
        slow = asyncio.ensure_future(ask(engine, model="a"))
        assert await text_of(engine, model="b") == TEXT
        assert not slow.done()
        gate.set()
        assert (await slow).model == "a"

    run(test())


def test_model_is_selected_by_webllms_rule() -> None:
    async def test() -> None:
        host = host_of("a", "b")
        engine = await engine_of(host)
        with pytest.raises(ModelNotLoadedError):
            await ask(engine)
        await engine.reload(["a", "b"])
        with pytest.raises(UnclearModelToUseError):
            await ask(engine)
        with pytest.raises(SpecifiedModelNotFoundError):
            await ask(engine, model="c")
        with pytest.raises(UnclearModelToUseError):
            await engine.reset_chat()
        assert await text_of(engine, model="b") == TEXT

    run(test())


# Loading


def test_create_loads_and_reports_progress() -> None:
    reports: list[InitProgressReport] = []

    async def test() -> None:
        host = host_of()
        config = MLCEngineConfig(host.app_config, reports.append)
        engine = await create_mlc_engine("model", config, host=host)
        assert engine.get_init_progress_callback() == reports.append
        assert await text_of(engine) == TEXT

    run(test())
    progress = [report.progress for report in reports]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    assert reports[0].text == "Start to fetch params"
    assert "Loading GPU shader modules[1/4]: 25% completed" in reports[1].text
    assert "Fetching param cache: 0.5 of 1.0 MB fetched. 50% completed" in reports[2].text
    assert (reports[2].loadedBytes, reports[2].totalBytes) == (500_000, 1_000_000)
    assert reports[-1].text == "Finish loading on WebGPU - Fake GPU"


def test_progress_of_two_models_grows_through_both() -> None:
    reports: list[InitProgressReport] = []

    async def test() -> None:
        host = host_of("a", "b")
        await engine_of(host, "a", "b", init_progress_callback=reports.append)

    run(test())
    progress = [report.progress for report in reports]
    assert progress == sorted(progress)
    half = next(r for r in reports if r.text == "Finish loading on WebGPU - Fake GPU (a)")
    assert (half.progress, progress[-1]) == (0.5, 1.0)


def test_failing_progress_callback_does_not_stop_the_loading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_report: InitProgressReport) -> None:
        raise RuntimeError("mine")

    async def test() -> None:
        engine = await engine_of(host_of(), "model", init_progress_callback=fail)
        assert await text_of(engine) == TEXT

    run(test())
    assert "init_progress_callback failed" in caplog.text


def test_required_features_of_all_records_are_asked_for() -> None:
    async def test() -> None:
        host = host_of("a", "b")
        records = [
            ModelRecord("memory:/a/", "a", required_features=("shader-f16",)),
            ModelRecord("memory:/b/", "b", required_features=("shader-f16", "subgroups")),
        ]
        engine = MLCEngine(MLCEngineConfig(AppConfig(records)), host=host)
        await engine.reload(["a", "b"])
        assert host.requested_features == [["shader-f16", "subgroups"]]

    run(test())


def test_tokens_that_the_tokenizer_lacks_cannot_be_drawn() -> None:
    async def test() -> None:
        host = host_of()
        host.files["model"] = model_files(vocab_size=600)
        found: list[int] = []
        host.before_load = lambda config: found.append(config.active_vocab_size)
        await engine_of(host, "model")
        assert found == [504]

    run(test())


def test_record_overrides_go_below_chat_opts() -> None:
    async def test() -> None:
        host = host_of()
        overrides = {"temperature": 0.2, "top_p": 0.3}
        record = ModelRecord("memory:/model/", "model", overrides=overrides)
        engine = MLCEngine(MLCEngineConfig(AppConfig([record])), host=host)
        await engine.reload("model", {"top_p": 0.4})
        await ask(engine)
        sampling = host.loaded[0].samplings[0]
        assert (sampling.temperature, sampling.top_p) == (0.2, 0.4)

    run(test())


def test_unknown_architecture_is_refused_before_anything_is_fetched() -> None:
    async def test() -> None:
        host = host_of()
        records = [
            ModelRecord("memory:/model/", "model", architecture="llama"),
            ModelRecord("memory:/other/", "other", architecture="gemma4"),
        ]
        engine = MLCEngine(MLCEngineConfig(AppConfig(records)), host=host)
        with pytest.raises(UnknownArchitectureError, match=r"^other is .*'gemma4'.*not supported"):
            await engine.reload(["model", "other"])
        assert host.sources == host.devices == []
        await engine.reload("model")
        assert await text_of(engine) == TEXT

    run(test())


def test_sources_are_opened_as_the_app_config_says() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        plain = host.app_config.to_dict() | {"cacheBackend": "indexeddb"}
        engine.set_app_config(plain)
        await engine.reload("model")
        assert [config.cacheBackend for config in host.app_configs] == [None, "indexeddb"]
        files = [("x.gguf", object())]
        assert await engine.register_local_files("mine", files) == "local:mine"
        assert host.registered == {"mine": files}

    run(test())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((["model"], [{}, {}]), ReloadArgumentSizeUnmatchedError),
        ((["model", "model"],), ReloadModelIdNotUniqueError),
        (("modle",), ModelNotFoundError),
        (("model", {"temperature": "x"}), ConfigurationFieldError),
    ],
)
def test_wrong_reload_arguments_leave_the_engine_usable(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    async def test() -> None:
        engine = await engine_of(host_of(), "model")
        with pytest.raises(error):
            await engine.reload(*arguments)
        with pytest.raises(ModelNotLoadedError):
            await ask(engine)
        await engine.reload("model")
        assert await text_of(engine) == TEXT

    run(test())


def test_broken_files_leave_the_engine_usable_and_free_everything() -> None:
    async def test() -> None:
        host = host_of("good", "no config", "bad config", "bad tokenizer")
        host.files["no config"] = {}
        host.files["bad config"] = model_files() | {"mlc-chat-config.json": "{"}
        host.files["bad tokenizer"] = model_files() | {"tokenizer.json": '{"model": 5}'}
        engine = await engine_of(host)
        for model_id, error, n_loaded in (
            ("no config", MissingFileError, 0),  # found before the weights of the other
            ("bad config", ModelFileFormatError, 0),
            ("bad tokenizer", ModelFileFormatError, 1),
        ):
            with pytest.raises(error):
                await engine.reload(["good", model_id])
            assert [model.is_destroyed for model in host.loaded] == [True] * n_loaded
            assert host.devices[-1].is_destroyed
        await engine.reload("good")
        assert await text_of(engine) == TEXT

    run(test())


@pytest.mark.parametrize("error", [WebGPUNotAvailableError("no gpu"), OSError("odd")])
def test_missing_gpu_leaves_the_engine_usable(error: Exception) -> None:
    async def test() -> None:
        host = host_of()
        host.device_error = error
        engine = await engine_of(host)
        with pytest.raises(type(error)):
            await engine.reload("model")
        host.device_error = None
        await engine.reload("model")
        assert await text_of(engine) == TEXT

    run(test())


def test_failure_while_loading_weights_frees_the_device() -> None:
    async def test() -> None:
        host = host_of()

        def fail(_config: Any) -> None:
            raise OutOfMemoryError("full")

        host.before_load = fail
        engine = await engine_of(host)
        with pytest.raises(OutOfMemoryError):
            await engine.reload("model")
        assert host.devices[0].is_destroyed
        host.before_load = None
        await engine.reload("model")
        assert await text_of(engine) == TEXT

    run(test())


def test_reload_frees_what_was_loaded() -> None:
    async def test() -> None:
        host = host_of("a", "b")
        engine = await engine_of(host, "a")
        await engine.reload("b")
        assert host.loaded[0].is_destroyed
        assert host.devices[0].is_destroyed
        assert (await ask(engine)).model == "b"

    run(test())


@pytest.mark.parametrize("by", ["unload", "reload"])
def test_reload_is_ended_by_another_call(by: str) -> None:
    async def test() -> None:
        host = host_of("slow", "other")
        forever = asyncio.Event()
        host.before_load = lambda _config: forever.wait()
        engine = await engine_of(host)
        loading = asyncio.ensure_future(engine.reload("slow"))
        await asyncio.sleep(0.001)
        host.before_load = None
        if by == "unload":
            await engine.unload()
        else:
            await engine.reload("other")
        await loading
        assert host.devices[0].is_destroyed
        assert [model.is_destroyed for model in host.loaded] == [False] * (by == "reload")
        await engine.reload("slow")
        assert await text_of(engine) == TEXT

    run(test())


def test_of_many_reloads_at_once_the_last_wins() -> None:
    async def test() -> None:
        host = host_of("a", "b", "c")
        host.before_load = lambda _config: asyncio.sleep(0.001)
        engine = await engine_of(host)
        first = asyncio.ensure_future(engine.reload("a"))
        await asyncio.sleep(0)
        await asyncio.gather(engine.reload("b"), engine.reload("c"), first)
        assert (await ask(engine)).model == "c"
        assert [model.is_destroyed for model in host.loaded[:-1]] == [True] * (len(host.loaded) - 1)
        assert sum(not device.is_destroyed for device in host.devices) == 1

    run(test())


def test_cancelled_reload_raises_and_frees() -> None:
    async def test() -> None:
        host = host_of()
        host.before_load = lambda _config: asyncio.Event().wait()
        engine = await engine_of(host)
        loading = asyncio.ensure_future(engine.reload("model"))
        await asyncio.sleep(0.001)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert host.devices[0].is_destroyed
        host.before_load = None
        await engine.reload("model")
        assert await text_of(engine) == TEXT

    run(test())


def test_penalties_come_from_the_models_configuration() -> None:
    async def test() -> None:
        host = host_of()
        host.files["model"] = model_files(repetition_penalty=1.1, presence_penalty=0.5)
        await ask(await engine_of(host, "model"))
        sampling = host.loaded[0].samplings[0]
        assert (sampling.repetition_penalty, sampling.presence_penalty) == (1.1, 0.5)

    run(test())


# Unloading and losing the device in the middle


@pytest.mark.parametrize("how", ["unload", "lost"])
def test_requests_fail_when_their_model_goes(how: str) -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        model, gate = host.loaded[0], asyncio.Event()
        model.gate = gate
        running = asyncio.ensure_future(ask(engine))
        waiting = asyncio.ensure_future(ask(engine))
        paused = await ask(engine, stream=True)
        await asyncio.sleep(0.001)
        expected: type[MLCError] = ModelNotLoadedError if how == "unload" else DeviceLostError
        if how == "unload":
            await engine.unload()
        else:
            model.fail_at = {n: DeviceLostError("read failed") for n in range(99)}
            host.devices[0].lose("driver")
            await asyncio.sleep(0.001)
        gate.set()
        for request in (running, waiting, anext(paused)):
            with pytest.raises(expected):
                await request
        assert model.is_destroyed
        assert model.in_flight == 0
        with pytest.raises(ModelNotLoadedError):
            await ask(engine)
        await engine.reload("model")
        assert await text_of(engine) == TEXT

    run(test())


def test_unload_explains_a_read_that_it_broke() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        model = host.loaded[0]
        model.gate = asyncio.Event()
        running = asyncio.ensure_future(ask(engine))
        await asyncio.sleep(0.001)
        model.fail_at = {n: DeviceLostError("the device was destroyed") for n in range(9)}
        await engine.unload()
        model.gate.set()
        with pytest.raises(ModelNotLoadedError, match="unloaded during the request"):
            await running

    run(test())


def test_failed_read_fails_one_request_only() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        host.loaded[0].fail_at = {2: DeviceLostError("read failed")}
        with pytest.raises(DeviceLostError, match="read failed"):
            await ask(engine)
        host.loaded[0].fail_at = {}
        assert await text_of(engine) == TEXT

    run(test())


def test_device_lost_while_loading_fails_the_reload() -> None:
    async def test() -> None:
        host = host_of()

        async def lose(_config: Any) -> None:
            host.devices[-1].lose("driver")
            await asyncio.sleep(60)  # a download that would go on

        host.before_load = lose
        engine = await engine_of(host)
        with pytest.raises(DeviceLostError, match=r"lost \(driver\)"):
            await engine.reload("model")
        assert (host.loaded, host.devices[0].is_destroyed) == ([], True)
        host.before_load = None
        await engine.reload("model")
        assert await text_of(engine) == TEXT

    run(test())


# The rest of the interface


def test_reset_chat_forgets_message_and_statistics() -> None:
    async def test() -> None:
        engine = await engine_of(host_of())
        await engine.reset_chat()  # nothing is loaded: nothing to do
        await engine.reload("model")
        await ask(engine)
        assert not (await engine.runtime_stats_text()).startswith("prefill: 0.0000")
        await engine.reset_chat(keep_stats=True)
        assert await engine.get_message() == ""
        assert not (await engine.runtime_stats_text()).startswith("prefill: 0.0000")
        await engine.reset_chat()
        expected = "prefill: 0.0000 tokens/sec, decoding: 0.0000 tokens/sec"
        assert await engine.runtime_stats_text() == expected

    run(test())


def test_forward_tokens_and_sample_appends_raw_ids() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host, "model")
        assert await engine.forward_tokens_and_sample(list(range(20)), True) == IDS[0]
        assert await engine.forward_tokens_and_sample([7], False) == IDS[1]
        model: FakeModel = host.loaded[0]
        assert model.chunks == [list(range(16)), [16, 17, 18, 19], [7]]
        await ask(engine)
        assert await engine.forward_tokens_and_sample([7], True) == IDS[0]
        assert model.chunks == [[7]]
        for wrong in ([], [-1], [504], ["a"]):
            with pytest.raises(ConfigValueError, match="0 to 503"):
                await engine.forward_tokens_and_sample(wrong, True)

    run(test())


def test_gpu_can_be_asked_without_a_model() -> None:
    async def test() -> None:
        host = host_of()
        engine = await engine_of(host)
        assert await engine.get_gpu_vendor() == "fake"
        assert host.devices[0].is_destroyed
        await engine.reload("model")
        assert await engine.get_max_storage_buffer_binding_size() == 128 << 20
        assert len(host.devices) == 2
        assert not host.devices[1].is_destroyed

    run(test())


def test_gpu_memory_is_that_of_the_loaded_models_and_has_the_app_configs_limit() -> None:
    async def test() -> None:
        host = host_of("model")
        engine = await engine_of(host)
        nothing = {"n_buffers": 0, "nbytes": 0, "limit_bytes": None}
        assert plain(await engine.get_gpu_memory()) == nothing
        record = {"model": "memory:/model/", "model_id": "model"}
        engine.set_app_config({"model_list": [record], "gpuMemoryLimitMB": 1.5})
        await engine.reload("model")
        assert host.memory_limits == [1_500_000]
        assert plain(await engine.get_gpu_memory()) == {
            "n_buffers": 3,
            "nbytes": 4096,
            "limit_bytes": 1_500_000,
        }
        await engine.unload()
        assert plain(await engine.get_gpu_memory()) == nothing

    run(test())


def test_set_app_config_takes_effect_with_the_next_reload() -> None:
    async def test() -> None:
        host = host_of("a", "b")
        engine = await engine_of(host, "a")
        engine.set_app_config({"model_list": [{"model": "memory:/b/", "model_id": "b"}]})
        assert await text_of(engine) == TEXT
        await engine.reload("b")
        with pytest.raises(ModelNotFoundError):
            await engine.reload("a")

    run(test())


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_log_levels_are_webllms(level: str) -> None:
    MLCEngine({"log_level": level}, host=FakeHost())
    assert logging.getLogger("py_engine").level == LOG_LEVELS[level]
    MLCEngine(host=FakeHost())


def test_wrong_engine_options_are_named() -> None:
    with pytest.raises(ConfigValueError, match=r"log_level is 'LOUD'.*SILENT"):
        MLCEngine({"log_level": "LOUD"}, host=FakeHost())
    with pytest.raises(ConfigValueError, match=r"logLevel.*log_level"):
        MLCEngine({"logLevel": "WARN"}, host=FakeHost())
    with pytest.raises(ConfigurationFieldError, match="model_list"):
        MLCEngine({"app_config": {"model_list": {}}}, host=FakeHost())


def test_app_config_may_be_a_plain_object() -> None:
    async def test() -> None:
        host = host_of()
        plain = json.loads(json.dumps(host.app_config.to_dict()))
        engine = MLCEngine({"app_config": plain}, host=host)
        await engine.reload("model")
        assert await text_of(engine) == TEXT

    run(test())
