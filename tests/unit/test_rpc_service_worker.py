"""The service worker's handler and its clients: pages that share, close, wait and lose it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from py_engine import errors
from py_engine.rpc import service_worker_handler
from py_engine.rpc.channel import Channel
from py_engine.rpc.service_worker_client import (
    ServiceWorkerMLCEngine,
    create_service_worker_mlc_engine,
)
from tests.support.event_loop import in_event_loop
from tests.support.scripted_engine import ScriptedEngine
from tests.support.shared_worker import Page, PageEvent, SharedWorker
from tests.support.worker_pair import MODEL, ask, text_of

LONG = "word " * 500


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for closed pages all the time."""
    monkeypatch.setattr(service_worker_handler, "_LOOK_S", 0)


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until something is so."""
    while not condition():
        await asyncio.sleep(0)


async def loaded(page: Page, **options: Any) -> ServiceWorkerMLCEngine:
    engine = page.engine(**options)
    await engine.reload(MODEL)
    return engine


def loads(engine: ScriptedEngine) -> int:
    return [name for name, _ in engine.calls].count("reload")


def kinds(page: Page) -> list[str]:
    return [message["kind"] for message in page.received]


async def answer(engine: ServiceWorkerMLCEngine, text: str = "hello") -> str:
    return str((await engine.chat_completion(ask(text))).choices[0].message.content)


@in_event_loop
async def test_each_page_gets_its_own_answers() -> None:
    worker = SharedWorker()
    engines = [await loaded(worker.page(name)) for name in ("a", "b")]
    replies = await asyncio.gather(*(answer(engine, str(i)) for i, engine in enumerate(engines)))
    assert replies == ["0 ", "1 "]
    uuids = [{message["uuid"] for message in page.received} for page in map(page_of, engines)]
    sent = [{message["uuid"] for message in page.sent} for page in map(page_of, engines)]
    assert [received - {""} for received in uuids] == sent


def page_of(engine: ServiceWorkerMLCEngine) -> Page:
    page = engine._channel._transport
    assert isinstance(page, Page)
    return page


@in_event_loop
async def test_a_model_that_is_loaded_is_not_loaded_again() -> None:
    worker = SharedWorker()
    first, second = worker.page("a"), worker.page("b")
    await loaded(first)
    told = len(first.received)
    await loaded(second)
    assert loads(worker.engine) == 1
    assert len(first.received) == told
    assert kinds(second) == ["initProgressCallback", "return"]
    assert second.received[0]["content"]["progress"] == 1
    await second.engine().reload(MODEL, {"temperature": 0.5})
    assert loads(worker.engine) == 2


@in_event_loop
async def test_pages_that_load_the_same_at_once_load_it_once() -> None:
    worker = SharedWorker()
    pages = [worker.page(name) for name in ("a", "b", "c")]
    await asyncio.gather(*(loaded(page) for page in pages))
    assert loads(worker.engine) == 1
    for page in pages:
        assert page.received[-2]["content"]["progress"] == 1
        assert kinds(page)[-1] == "return"


@in_event_loop
async def test_a_request_waits_for_the_load_of_another_page() -> None:
    worker = SharedWorker()
    there = await loaded(worker.page("a"))
    worker.restart()
    loading = asyncio.ensure_future(loaded(worker.page("b")))
    await until(lambda: loads(worker.engine))
    assert await answer(there) == "hello "
    assert await answer(await loading) == "hello "
    assert loads(worker.engine) == 1


@pytest.mark.parametrize("action", ["close", "terminate"])
@in_event_loop
async def test_a_page_that_leaves_its_stream_frees_the_model(action: str) -> None:
    worker = SharedWorker()
    leaver, other = await loaded(worker.page("a")), await loaded(worker.page("b"))
    stream = await leaver.chat_completion(ask(LONG, stream=True))
    await anext(stream)
    waiting = asyncio.ensure_future(answer(other))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    if action == "close":
        worker.close(page_of(leaver))
    else:
        leaver.terminate()
        with pytest.raises(errors.WorkerFailedError, match="terminate"):
            await anext(stream)
    assert await waiting == "hello "
    assert worker.engine.finished == 2


@pytest.mark.parametrize("action", ["close", "terminate"])
@in_event_loop
async def test_a_page_that_leaves_frees_the_model_of_its_request(action: str) -> None:
    worker = SharedWorker()
    leaver, other = await loaded(worker.page("a")), await loaded(worker.page("b"))
    asked = asyncio.ensure_future(answer(leaver, LONG))
    await until(lambda: worker.engine.last_message)
    waiting = asyncio.ensure_future(answer(other))
    if action == "close":
        worker.close(page_of(leaver))
    else:
        leaver.terminate()
        with pytest.raises(errors.WorkerFailedError):
            await asked
    assert await waiting == "hello "
    assert len(worker.engine.last_message) < len(LONG)
    asked.cancel()


@in_event_loop
async def test_a_load_of_a_closed_page_is_taken_over_by_one_that_waits_for_it() -> None:
    worker = SharedWorker()
    worker.engine.seconds_per_word = 0.05
    first = worker.page("a")
    loading = asyncio.ensure_future(loaded(first))
    await until(lambda: loads(worker.engine))
    waiting = asyncio.ensure_future(loaded(worker.page("b")))
    worker.close(first)
    assert await answer(await waiting) == "hello "
    assert loads(worker.engine) == 2
    loading.cancel()


@in_event_loop
async def test_a_page_that_gives_its_load_up_leaves_the_others_theirs() -> None:
    worker = SharedWorker()
    worker.engine.seconds_per_word = 0.05
    giving_up = asyncio.ensure_future(loaded(worker.page("a")))
    await until(lambda: loads(worker.engine))
    waiting = asyncio.ensure_future(loaded(worker.page("b")))
    await asyncio.sleep(0)
    giving_up.cancel()
    engine = await waiting
    assert await answer(engine) == "hello "
    assert "unload" not in [name for name, _ in worker.engine.calls]
    await engine.unload()
    assert worker.engine.calls[-1] == ("unload", None)


@in_event_loop
async def test_closed_pages_are_forgotten_and_nobody_is_looked_for_in_vain() -> None:
    worker = SharedWorker()
    page = worker.page("a")
    await loaded(page)
    worker.close(page)
    engine = await loaded(worker.page("b"))
    stream = await engine.chat_completion(ask("one", stream=True))
    look = worker.handler._look
    assert look is not None and not look.done()
    assert await text_of(stream) == "one "
    await look
    assert list(worker.handler._pages) == ["b"]


@in_event_loop
async def test_a_page_that_comes_back_is_served() -> None:
    worker = SharedWorker()
    page = worker.page("a")
    engine = await loaded(page)
    stream = await engine.chat_completion(ask(LONG, stream=True))
    await anext(stream)
    worker.open_pages.remove("a")  # into the browser's cache of pages
    await until(lambda: worker.engine.finished)
    worker.open_pages.add("a")
    with pytest.raises(errors.WorkerRestartedError):
        await anext(stream)
    assert await answer(engine) == "hello "


@in_event_loop
async def test_the_worker_lives_until_each_request_is_answered() -> None:
    worker = SharedWorker()
    engine = await loaded(worker.page("a"), keep_alive_ms=1)
    assert await answer(engine) == "hello "
    await until(lambda: "heartbeat" in kinds(page_of(engine)))
    assert len(worker.waits) == 2  # none for the heartbeat
    await asyncio.gather(*worker.waits)


@in_event_loop
async def test_a_message_of_nobody_is_ignored() -> None:
    worker = SharedWorker()
    message = {"kind": "getMessage", "uuid": "1", "content": {}}
    assert worker.handler.on_message(PageEvent(message, None)) is None
    assert worker.waits == []


@in_event_loop
async def test_a_script_can_post_to_all_pages() -> None:
    worker = SharedWorker()
    engines = [await loaded(worker.page(name)) for name in ("a", "b")]
    worker.handler.post_message({"kind": "news"})
    assert [kinds(page_of(engine))[-1] for engine in engines] == ["news", "news"]


@in_event_loop
async def test_missed_heartbeats_are_counted_until_one_is_answered() -> None:
    worker = SharedWorker()
    engine = await loaded(worker.page("a"), keep_alive_ms=1)
    worker.is_asleep = True
    await until(lambda: engine.missed_heartbeat >= 3)
    worker.wake_up()
    await until(lambda: engine.missed_heartbeat == 0)
    beats = [message for message in page_of(engine).sent if message["kind"] == "keepAlive"]
    assert len(beats) >= 3
    engine.terminate()
    await asyncio.sleep(0.01)
    count = len(page_of(engine).sent)
    await asyncio.sleep(0.01)
    assert len(page_of(engine).sent) == count


@pytest.mark.parametrize("kind", ["whole", "unread stream"])
@in_event_loop
async def test_a_request_of_a_worker_that_was_replaced_is_repeated(kind: str) -> None:
    worker = SharedWorker()
    config = {"app_config": {"model_list": [{"model": "models/x", "model_id": MODEL}]}}
    engine = await loaded(worker.page("a"), engine_config=config, keep_alive_ms=1)
    if kind == "whole":
        asked = asyncio.ensure_future(answer(engine, LONG))
        await until(lambda: worker.engine.last_message)
    else:
        asked = asyncio.ensure_future(text_of(await engine.chat_completion(ask(LONG, stream=True))))
    worker.restart()
    assert await asked == LONG
    loaded_with = [name for name, _ in worker.engine.calls]
    assert loaded_with == ["set_app_config", "reload"]
    assert await answer(engine) == "hello "


@in_event_loop
async def test_a_worker_that_starts_slowly_gets_a_request_again_once() -> None:
    worker = SharedWorker()
    engine = await loaded(worker.page("a"), keep_alive_ms=1)
    asked = asyncio.ensure_future(answer(engine, LONG))
    await until(lambda: worker.engine.last_message)
    worker.restart()
    worker.is_asleep = True
    await until(lambda: engine.missed_heartbeat > 5)
    worker.wake_up()
    assert await asked == LONG
    sent = [message["kind"] for message in page_of(engine).sent]
    assert sent.count("chatCompletionNonStreaming") == 2


@in_event_loop
async def test_a_stream_with_chunks_tells_that_its_worker_was_replaced() -> None:
    worker = SharedWorker()
    engine = await loaded(worker.page("a"), keep_alive_ms=1)
    stream = await engine.chat_completion(ask(LONG, stream=True))
    assert (await anext(stream)).choices[0].delta.content == "word "
    worker.restart()
    with pytest.raises(errors.WorkerRestartedError, match="send the request again"):
        await anext(stream)
    assert await answer(engine) == "hello "
    assert loads(worker.engine) == 1


@in_event_loop
async def test_all_pages_go_on_after_the_worker_was_replaced() -> None:
    worker = SharedWorker()
    engines = [await loaded(worker.page(name), keep_alive_ms=1) for name in "abc"]
    asked = [asyncio.ensure_future(answer(engine, LONG)) for engine in engines]
    await until(lambda: worker.engine.last_message)
    worker.restart()
    assert await asyncio.gather(*asked) == [LONG] * 3
    assert loads(worker.engine) == 1


def test_the_handler_is_for_service_workers_only() -> None:
    with pytest.raises(errors.NonWorkerEnvironmentError, match="create_service_worker_mlc_engine"):
        service_worker_handler.ServiceWorkerMLCEngineHandler(ScriptedEngine())


@pytest.mark.parametrize("keep_alive_ms", [0, -1, float("nan"), 1e9])
@in_event_loop
async def test_keep_alive_must_be_a_time(keep_alive_ms: float) -> None:
    page = SharedWorker().page("a")
    with pytest.raises(errors.RangeError, match="keep_alive_ms is"):
        page.engine(keep_alive_ms=keep_alive_ms)


@in_event_loop
async def test_a_load_that_fails_leaves_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    channels: list[Channel] = []
    connect = Channel.__init__

    def note(channel: Channel, *arguments: Any) -> None:
        channels.append(channel)
        connect(channel, *arguments)

    monkeypatch.setattr(Channel, "__init__", note)
    page = SharedWorker().page("a")
    engine = await create_service_worker_mlc_engine(MODEL, registration=page)
    assert await answer(engine) == "hello "
    with pytest.raises(errors.ModelNotFoundError):
        await create_service_worker_mlc_engine("missing", registration=page)
    assert [channel.is_closed for channel in channels] == [False, True]
