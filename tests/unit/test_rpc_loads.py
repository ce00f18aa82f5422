"""The proxy and the handler back to back: loading, progress, unloading."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from py_engine import errors
from py_engine.rpc.client import WebWorkerMLCEngine, create_web_worker_mlc_engine
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.rpc.loads import LoadState
from tests.support.event_loop import in_event_loop
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import MODEL, WorkerPair, ask, kinds


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
async def test_the_factory_loads_the_model() -> None:
    pair = WorkerPair()
    engine = await create_web_worker_mlc_engine(pair.transport, MODEL, None, {"top_p": 0.5})
    assert isinstance(engine, WebWorkerMLCEngine)
    assert pair.handler.loaded == LoadState([MODEL], [{"top_p": 0.5}])
