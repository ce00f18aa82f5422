"""MLCEngine over scripted models: answers, and the smaller methods."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from py_engine.api.objects import ApiObject, plain
from py_engine.engine import MLCEngine
from py_engine.errors import (
    ConfigurationFieldError,
    ConfigValueError,
    ContextWindowSizeExceededError,
    ModelNotFoundError,
    ModelNotLoadedError,
    SpecifiedModelNotFoundError,
    UnclearModelToUseError,
    UnsupportedFieldsError,
)
from py_engine.log_levels import LOG_LEVELS
from py_engine.models.base import SamplingParams
from tests.support.engines import IDS, MESSAGES, TEXT, ask, engine_of, host_of, ids_of, text_of
from tests.support.event_loop import in_clean_event_loop
from tests.support.fake_host import FakeHost
from tests.support.fake_model import FakeModel

PROMPT_IDS = ids_of("U: Hi\n") + ids_of("A: ")


@in_clean_event_loop
async def test_answers_with_text_reason_and_usage() -> None:
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


@in_clean_event_loop
async def test_sampling_comes_from_the_request_and_else_from_the_model() -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    await ask(engine)
    await ask(engine)
    await ask(engine, temperature=0, top_p=0.5, seed=-7)
    first, second, third = host.loaded[0].samplings
    assert (first.temperature, first.top_p) == (0.7, 0.95)
    assert first.seed != second.seed
    assert third == SamplingParams(0.0, 0.5, 2**64 - 7)


@in_clean_event_loop
async def test_chat_opts_override_the_models_configuration() -> None:
    host = host_of()
    engine = await engine_of(host)
    await engine.reload("model", {"temperature": 0.1, "context_window_size": 32})
    await ask(engine)
    assert host.loaded[0].samplings[0].temperature == 0.1
    assert host.loaded[0].context_window_size == 32


@in_clean_event_loop
async def test_stop_of_the_request_is_added_to_the_models() -> None:
    engine = await engine_of(host_of(), "model")
    assert await text_of(engine, stop="fox") == "The quick brown "


@in_clean_event_loop
async def test_max_tokens_ends_with_length() -> None:
    engine = await engine_of(host_of(), "model")
    response = await ask(engine, max_tokens=3)
    assert response.choices[0].finish_reason == "length"
    assert response.usage.completion_tokens == 3


@in_clean_event_loop
async def test_choices_have_seeds_of_their_own_and_count_the_prompt_once() -> None:
    host = host_of()
    engine = await engine_of(host, "model")
    one = await ask(engine)
    three = await ask(engine, n=3, seed=5)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens
    assert [s.seed for s in host.loaded[0].samplings[1:]] == [5, 6, 7]


@in_clean_event_loop
async def test_chat_completion_takes_a_dict_or_an_object() -> None:
    engine = await engine_of(host_of(), "model")
    for request in ({"messages": MESSAGES}, ApiObject({"messages": MESSAGES})):
        response = await engine.chat_completion(request)
        assert isinstance(response, ApiObject)
        assert response.choices[0].message.content == TEXT


@in_clean_event_loop
async def test_request_errors_leave_the_engine_usable() -> None:
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


@in_clean_event_loop
async def test_unknown_fields_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = await engine_of(host_of(), "model")
    await ask(engine, temprature=1)
    await ask(engine, temprature=1, topp=1)
    assert [r.getMessage().split(": ")[-1] for r in caplog.records] == ["temprature", "topp"]


@in_clean_event_loop
async def test_two_models_answer_at_the_same_time() -> None:
    host = host_of("a", "b")
    engine = await engine_of(host, "a", "b")
    gate = host.loaded[0].gate = asyncio.Event()
    slow = asyncio.ensure_future(ask(engine, model="a"))
    assert await text_of(engine, model="b") == TEXT
    assert not slow.done()
    gate.set()
    assert (await slow).model == "a"


@in_clean_event_loop
async def test_model_is_selected_by_webllms_rule() -> None:
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


@in_clean_event_loop
async def test_reset_chat_forgets_message_and_statistics() -> None:
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


@in_clean_event_loop
async def test_forward_tokens_and_sample_appends_raw_ids() -> None:
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


@in_clean_event_loop
async def test_gpu_can_be_asked_without_a_model() -> None:
    host = host_of()
    engine = await engine_of(host)
    assert await engine.get_gpu_vendor() == "fake"
    assert host.devices[0].is_destroyed
    await engine.reload("model")
    assert await engine.get_max_storage_buffer_binding_size() == 128 << 20
    assert len(host.devices) == 2
    assert not host.devices[1].is_destroyed


@in_clean_event_loop
async def test_gpu_memory_is_that_of_the_loaded_models_and_has_the_app_configs_limit() -> None:
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


@in_clean_event_loop
async def test_set_app_config_takes_effect_with_the_next_reload() -> None:
    host = host_of("a", "b")
    engine = await engine_of(host, "a")
    engine.set_app_config({"model_list": [{"model": "memory:/b/", "model_id": "b"}]})
    assert await text_of(engine) == TEXT
    await engine.reload("b")
    with pytest.raises(ModelNotFoundError):
        await engine.reload("a")


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


@in_clean_event_loop
async def test_app_config_may_be_a_plain_object() -> None:
    host = host_of()
    plain = json.loads(json.dumps(host.app_config.to_dict()))
    engine = MLCEngine({"app_config": plain}, host=host)
    await engine.reload("model")
    assert await text_of(engine) == TEXT
