"""The proxy and the handler back to back: errors, and the worker's end."""

from __future__ import annotations

import asyncio

import pytest

from py_engine import errors
from tests.support.event_loop import in_event_loop
from tests.support.scripted_engine import ScriptedEngine
from tests.support.worker_pair import MODEL, WorkerPair, ask


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
