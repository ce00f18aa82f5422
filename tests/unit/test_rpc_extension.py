"""The extension's proxy and handler over ports: several pages, disconnection, a killed worker."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from py_engine import errors
from py_engine.rpc import extension_client
from py_engine.rpc.channel import MAX_REPEATS
from py_engine.rpc.extension_client import ExtensionServiceWorkerMLCEngine
from py_engine.rpc.extension_handler import ExtensionServiceWorkerMLCEngineHandler
from tests.support.event_loop import in_event_loop
from tests.support.fake_extension import FakeExtension, FakePort
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import MODEL, PickedFile, ask, text_of


def page_of(extension: FakeExtension, **config: Any) -> ExtensionServiceWorkerMLCEngine:
    return ExtensionServiceWorkerMLCEngine(config, ports=extension)


def calls(extension: FakeExtension, name: str) -> list[Any]:
    """Return the arguments of all calls of an engine's method, in all workers."""
    return [
        arguments
        for worker in extension.workers
        for called, arguments in worker.engine.calls
        if called == name
    ]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


@in_event_loop
async def test_a_page_is_answered_over_its_port() -> None:
    page = page_of(FakeExtension())
    await page.reload(MODEL)
    reply = await page.chat.completions.create(**ask("hello there"))
    assert reply.choices[0].message.content == "hello there "
    stream = await page.chat_completion(ask("one two", stream=True))
    assert await text_of(stream) == "one two "


@in_event_loop
async def test_each_page_gets_its_own_answers() -> None:
    extension = FakeExtension()
    pages = [page_of(extension) for _ in range(3)]
    await asyncio.gather(*(page.reload(MODEL) for page in pages))
    streams = [
        await page.chat_completion(ask(f"page {index}", stream=True))
        for index, page in enumerate(pages)
    ]
    assert await asyncio.gather(*map(text_of, streams)) == ["page 0 ", "page 1 ", "page 2 "]
    for port in extension.ports:
        uuids = [m["uuid"] for m in port.received if m["kind"] == "return"]
        assert len(uuids) == len(set(uuids))


@in_event_loop
async def test_what_one_page_has_loaded_another_finds() -> None:
    extension = FakeExtension()
    await page_of(extension).reload(MODEL, {"temperature": 0.5})
    reports: list[Any] = []
    other = page_of(extension, init_progress_callback=reports.append)
    await other.reload(MODEL, {"temperature": 0.5})
    assert len(calls(extension, "reload")) == 1
    assert [(report.progress, report.text) for report in reports] == [
        (1, "Finish loading on WebGPU - scripted")
    ]
    await other.reload(MODEL, {"temperature": 0.7})
    assert len(calls(extension, "reload")) == 2


@in_event_loop
async def test_a_page_that_closes_in_mid_stream_frees_the_model() -> None:
    extension = FakeExtension()
    leaving, staying = page_of(extension), page_of(extension)
    await leaving.reload(MODEL)
    await staying.reload(MODEL)
    stream = await leaving.chat_completion(ask("a long story", stream=True))
    await anext(stream)
    waiting = asyncio.create_task(staying.chat_completion(ask("next")))
    await asyncio.sleep(0.01)
    assert not waiting.done()  # one model, one generation at a time
    extension.ports[0].close()
    reply = await waiting
    assert reply.choices[0].message.content == "next "
    assert extension.worker.engine.finished == 2


@in_event_loop
async def test_a_page_that_closes_gives_up_its_requests() -> None:
    extension = FakeExtension(seconds_per_word=0.01)
    leaving, staying = page_of(extension), page_of(extension)
    await leaving.reload(MODEL)
    await staying.reload(MODEL)
    asked = asyncio.create_task(leaving.chat_completion(ask("word " * 10_000)))
    await until(lambda: extension.worker.engine._turn.locked())
    leaving.terminate()
    reply = await staying.chat_completion(ask("next"))
    assert reply.choices[0].message.content == "next "
    with pytest.raises(errors.WorkerFailedError, match="terminate"):
        await asked


@in_event_loop
async def test_the_killed_worker_is_told_and_the_next_request_starts_another() -> None:
    extension = FakeExtension()
    told: list[str] = []
    page = page_of(extension, on_disconnect=lambda: told.append("gone"))
    await page.reload(MODEL, {"temperature": 0.5})
    extension.kill()
    assert told == ["gone"]
    reply = await page.chat_completion(ask("again"))
    assert reply.choices[0].message.content == "again "
    assert len(extension.workers) == 2
    assert calls(extension, "reload") == [([MODEL], [{"temperature": 0.5}])] * 2


@in_event_loop
async def test_a_request_of_a_killed_worker_is_repeated() -> None:
    extension = FakeExtension(seconds_per_word=0.01)
    page = page_of(extension)
    await page.reload(MODEL)
    asked = asyncio.create_task(page.chat_completion(ask("over and over")))
    await until(lambda: extension.worker.engine._turn.locked())
    extension.kill()
    assert (await asked).choices[0].message.content == "over and over "
    assert len(extension.workers) == 2


@in_event_loop
async def test_a_stream_of_a_killed_worker_says_that_its_rest_is_lost() -> None:
    extension = FakeExtension()
    page = page_of(extension)
    await page.reload(MODEL)
    stream = await page.chat_completion(ask("one two three", stream=True))
    await anext(stream)
    next_chunk = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    extension.kill()
    with pytest.raises(errors.WorkerRestartedError, match="send the request again"):
        await next_chunk
    stream = await page.chat_completion(ask("one two three", stream=True))
    assert await text_of(stream) == "one two three "


@in_event_loop
async def test_a_request_that_kills_each_worker_fails() -> None:
    extension = FakeExtension(seconds_per_word=0.01)
    page = page_of(extension)
    await page.reload(MODEL)
    asked = asyncio.create_task(page.chat_completion(ask("deadly")))
    for count in range(1, MAX_REPEATS + 2):
        await until(lambda count=count: len(extension.workers) == count)
        await until(lambda: extension.worker.engine._turn.locked())
        extension.kill()
    with pytest.raises(errors.WorkerRestartedError):
        await asked
    assert len(extension.workers) == MAX_REPEATS + 1
    reply = await page.chat_completion(ask("fine"))
    assert reply.choices[0].message.content == "fine "


@in_event_loop
async def test_where_nobody_listens_requests_fail_with_the_browsers_reason() -> None:
    extension = FakeExtension()
    extension.has_listener = False
    page = page_of(extension)
    with pytest.raises(errors.WorkerFailedError, match=r"Could not establish connection\."):
        await page.reload(MODEL)
    extension.has_listener = True
    await page.reload(MODEL)


@in_event_loop
async def test_a_removed_extension_fails_all_requests() -> None:
    extension = FakeExtension(seconds_per_word=0.01)
    page = page_of(extension)
    await page.reload(MODEL)
    asked = asyncio.create_task(page.chat_completion(ask("to the end")))
    await until(lambda: extension.worker.engine._turn.locked())
    extension.is_removed = True
    extension.kill()
    with pytest.raises(errors.WorkerFailedError, match="removed"):
        await asked
    with pytest.raises(errors.WorkerFailedError, match="removed"):
        await page.chat_completion(ask("more"))


@in_event_loop
async def test_a_mistake_in_on_disconnect_keeps_no_request_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    extension = FakeExtension(seconds_per_word=0.01)
    page = page_of(extension, on_disconnect=lambda: 1 / 0)
    await page.reload(MODEL)
    asked = asyncio.create_task(page.chat_completion(ask("over and over")))
    await until(lambda: extension.worker.engine._turn.locked())
    with caplog.at_level(logging.ERROR):
        extension.kill()
    assert "on_disconnect failed: ZeroDivisionError" in caplog.text
    assert (await asked).choices[0].message.content == "over and over "


@in_event_loop
async def test_heartbeats_go_out_while_connected_and_not_after() -> None:
    others = asyncio.all_tasks()
    extension = FakeExtension()
    page = ExtensionServiceWorkerMLCEngine(keep_alive_ms=1, ports=extension)
    first = extension.ports[0]
    await until(lambda: [m["kind"] for m in first.received].count("heartbeat") >= 3)
    extension.kill()
    await asyncio.sleep(0.01)
    assert len(extension.ports) == 1  # an idle page does not wake the worker
    await page.reload(MODEL)
    await until(lambda: any(m["kind"] == "heartbeat" for m in extension.ports[1].received))
    page.terminate()
    await until(lambda: asyncio.all_tasks() == others)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up ports that are silent for 20 ms."""
    monkeypatch.setattr(extension_client, "MAX_SILENCE_S", 0.02)


@pytest.mark.usefixtures("impatient")
@in_event_loop
async def test_a_connection_that_the_browser_lost_is_made_again() -> None:
    extension = FakeExtension()
    extension.loses_connections = True
    page = ExtensionServiceWorkerMLCEngine(keep_alive_ms=2, ports=extension)
    loaded = asyncio.create_task(page.reload(MODEL))
    await asyncio.sleep(0.005)
    extension.loses_connections = False
    await asyncio.wait_for(loaded, 5)
    assert len(extension.ports) == 2
    extension.kill()
    extension.loses_connections = True
    asked = asyncio.create_task(page.chat_completion(ask("all the same")))
    await until(lambda: len(extension.ports) == 3)
    extension.loses_connections = False
    reply = await asyncio.wait_for(asked, 5)
    assert reply.choices[0].message.content == "all the same "
    page.terminate()


@pytest.mark.usefixtures("impatient")
@in_event_loop
async def test_requests_fail_when_every_connection_is_lost() -> None:
    extension = FakeExtension()
    extension.loses_connections = True
    page = ExtensionServiceWorkerMLCEngine(keep_alive_ms=2, ports=extension)
    with pytest.raises(errors.WorkerRestartedError, match="reload"):
        await asyncio.wait_for(page.reload(MODEL), 5)
    assert len(extension.ports) == 1 + MAX_REPEATS
    page.terminate()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("has_heartbeats", [True, False])
@in_event_loop
async def test_a_worker_that_takes_long_keeps_its_connection(has_heartbeats: bool) -> None:
    extension = FakeExtension(seconds_per_word=0.02)
    page = ExtensionServiceWorkerMLCEngine(keep_alive_ms=2, ports=extension)
    if not has_heartbeats:  # as WebLLM's handler
        to_worker = extension.ports[0].other
        assert to_worker is not None
        heard = to_worker._deliver
        to_worker._deliver = lambda text: None if "keepAlive" in text else heard(text)  # type: ignore[method-assign]
    await page.reload(MODEL)
    reply = await page.chat_completion(ask("one two three four five"))
    assert reply.choices[0].message.content == "one two three four five "
    await asyncio.sleep(0.05)  # and nothing to answer
    assert len(extension.ports) == 1
    page.terminate()


@in_event_loop
async def test_after_terminate_nothing_is_called_back() -> None:
    extension = FakeExtension()
    told: list[str] = []
    page = page_of(extension, on_disconnect=lambda: told.append("gone"))
    page.terminate()
    extension.kill()
    assert told == []
    with pytest.raises(errors.WorkerFailedError, match="terminate"):
        await page.reload(MODEL)


@in_event_loop
async def test_files_cannot_go_through_a_port() -> None:
    extension = FakeExtension()
    page = page_of(extension)
    with pytest.raises(errors.ConfigValueError, match="JSON only"):
        await page.register_local_files("mine", [PickedFile()])
    await page.reload(MODEL)  # the connection is as good as before


@pytest.mark.parametrize("keep_alive_ms", [0, -1, float("nan")])
def test_keep_alive_must_be_positive(keep_alive_ms: float) -> None:
    with pytest.raises(errors.ConfigValueError, match="keep_alive_ms"):
        ExtensionServiceWorkerMLCEngine(keep_alive_ms=keep_alive_ms, ports=FakeExtension())


@in_event_loop
async def test_early_messages_are_answered_first() -> None:
    handler = ExtensionServiceWorkerMLCEngineHandler(engine=ScriptedEngine())
    page_end, worker_end = FakePort(), FakePort()
    page_end.other, worker_end.other = worker_end, page_end
    page_end.listen(lambda message: None, None)
    early = [
        {"kind": "reload", "uuid": "a", "content": {"modelId": [MODEL]}},
        {"kind": "keepAlive", "uuid": "b"},
    ]
    handler.set_port(worker_end, early)
    await until(lambda: any(m.get("uuid") == "a" for m in page_end.received))
    assert page_end.received[0] == {"kind": "heartbeat", "uuid": "b"}


@in_event_loop
async def test_webllms_way_to_make_a_handler() -> None:
    ends = [(FakePort(), FakePort()) for _ in range(2)]
    for page_end, worker_end in ends:
        page_end.other, worker_end.other = worker_end, page_end
        page_end.listen(lambda message: None, None)
    handler = ExtensionServiceWorkerMLCEngineHandler(ends[0][1], engine=ScriptedEngine())
    handler.set_port(ends[1][1])
    handler.post_message({"kind": "news", "uuid": ""})
    await asyncio.sleep(0)
    assert [end.received for end, _ in ends] == [[{"kind": "news", "uuid": ""}]] * 2
    ends[0][0].close()
    handler.post_message({"kind": "more", "uuid": ""})
    await asyncio.sleep(0)
    assert [len(end.received) for end, _ in ends] == [1, 2]
