"""The proxy and the handler back to back: several clients of one worker."""

from __future__ import annotations

import asyncio
from typing import Any

from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from py_engine.rpc.served_client import ServedClient
from tests.support.event_loop import in_event_loop
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import MODEL, WorkerPair, ask

CONFIG = {"model_list": [{"model": "https://example.org/mine/", "model_id": MODEL}]}


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
