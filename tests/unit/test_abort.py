"""A request's `signal` ends just this request, in the engine itself and through the proxy."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

import pytest

from py_engine import AbortController
from py_engine.config import AppConfig
from py_engine.engine import MLCEngine
from py_engine.errors import AbortError, ConfigValueError, ModelNotLoadedError
from py_engine.tokenizer import tokenizer_from_json
from tests.support.fake_host import END, FakeHost
from tests.support.tokenizer_files import tokenizer_json
from tests.support.worker_pair import WorkerPair

TEXT = "The quick brown fox jumps over the lazy dog"
MESSAGES = [{"role": "user", "content": "Hi"}]
ENGINES = ("direct", "proxy")


class Case:
    """An engine with one loaded model that says TEXT, and what it computes with."""

    def __init__(self, engine: Any, host: FakeHost) -> None:
        self.engine, self.host = engine, host
        self.controller = AbortController()

    async def ask(self, **fields: Any) -> Any:
        return await self.engine.chat.completions.create(messages=MESSAGES, **fields)

    def begin(self, **fields: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.ask(signal=self.controller.signal, **fields))

    async def is_free(self) -> bool:
        return str((await self.ask()).choices[0].message.content) == TEXT


@asynccontextmanager
async def case_of(kind: str) -> AsyncIterator[Case]:
    host = FakeHost()
    ids = (await tokenizer_from_json(tokenizer_json("gpt2"))).encode(TEXT)
    host.scripts = {model_id: [*ids, END] for model_id in host.files}
    engine: Any = MLCEngine({"app_config": host.app_config}, host=host)
    if kind == "proxy":
        engine = WorkerPair(engine).client
    await engine.reload("model")
    yield Case(engine, host)
    await engine.unload()


def over_both(test: Callable[[Case], Coroutine[Any, Any, None]]) -> Any:
    @pytest.mark.parametrize("kind", ENGINES)
    @wraps(test)
    def run(kind: str) -> None:
        async def main() -> None:
            async with asyncio.timeout(10), case_of(kind) as case:
                await test(case)

        asyncio.run(main())

    del run.__wrapped__  # pytest looks for the inner function's arguments
    return run


async def a_while() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@over_both
async def test_a_reply_ends_and_frees_the_model(case: Case) -> None:
    model = case.host.loaded[0]
    model.gate = asyncio.Event()
    reply = case.begin()
    await a_while()
    assert model.in_flight
    case.controller.abort("enough")
    model.gate.set()
    with pytest.raises(AbortError, match=r"^enough$"):
        await reply
    assert await case.is_free()


@over_both
async def test_a_long_prompt_ends_between_its_chunks(case: Case) -> None:
    model = case.host.loaded[0]
    model.context_window_size, model.prefill_chunk_size = 4096, 1
    model.on_prefill = lambda n: case.controller.abort() if n == 3 else None
    messages = [{"role": "user", "content": "word " * 500}]
    create = case.engine.chat.completions.create
    with pytest.raises(AbortError, match="was aborted"):
        await create(messages=messages, signal=case.controller.signal)
    await a_while()
    assert len(model.chunks) < 100
    model.on_prefill = None
    assert await case.is_free()


@over_both
async def test_a_request_in_the_queue_ends_without_its_turn(case: Case) -> None:
    model = case.host.loaded[0]
    model.gate = asyncio.Event()
    first = asyncio.ensure_future(case.ask())
    await a_while()
    waiting = case.begin()
    await a_while()
    case.controller.abort()
    with pytest.raises(AbortError):
        await waiting
    model.gate.set()
    assert (await first).choices[0].message.content == TEXT
    assert len(model.samplings) == 1


@over_both
async def test_a_stream_ends_for_its_reader_and_without_one(case: Case) -> None:
    model = case.host.loaded[0]
    stream = await case.begin(stream=True)
    await anext(stream)
    model.gate = asyncio.Event()
    reader = asyncio.ensure_future(anext(stream))
    await a_while()
    case.controller.abort()
    model.gate.set()
    with pytest.raises(AbortError):
        await reader
    assert await case.is_free()

    case.controller = AbortController()
    stream = await case.begin(stream=True)
    await anext(stream)
    case.controller.abort()
    assert await case.is_free()
    with pytest.raises(AbortError):
        await anext(stream)


@over_both
async def test_a_stream_with_a_signal_is_read_and_dropped_as_others(case: Case) -> None:
    stream = await case.begin(stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == TEXT
    case.controller.abort()
    with pytest.raises(AbortError):
        await anext(stream)

    case.controller = AbortController()
    async with await case.begin(stream=True) as stream:
        await anext(stream)
    assert await case.is_free()
    stream = await case.begin(stream=True)
    await anext(stream)
    del stream
    gc.collect()
    assert await case.is_free()


@over_both
async def test_only_requests_with_the_signal_end(case: Case) -> None:
    other = asyncio.ensure_future(case.ask())
    case.controller.abort()
    case.controller.abort()
    with pytest.raises(AbortError):
        await case.begin()
    assert (await other).choices[0].message.content == TEXT


@over_both
async def test_a_load_ends_with_nothing_loaded(case: Case) -> None:
    case.host.before_load = lambda _config: asyncio.Event().wait()
    loading = asyncio.ensure_future(case.engine.reload("model", signal=case.controller.signal))
    await a_while()
    case.controller.abort("no")
    with pytest.raises(AbortError, match=r"^no$"):
        await loading
    await a_while()
    assert case.host.devices[-1].is_destroyed
    case.host.before_load = None
    await case.engine.reload("model")
    assert await case.is_free()


@over_both
async def test_cancelling_the_caller_is_no_abort(case: Case) -> None:
    case.host.loaded[0].gate = gate = asyncio.Event()
    reply = case.begin()
    await a_while()
    reply.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await reply
    assert await case.is_free()


@over_both
async def test_an_error_of_the_request_is_raised_as_it_is(case: Case) -> None:
    with pytest.raises(ConfigValueError, match="temperature"):
        await case.begin(temperature="hot")
    with pytest.raises(ConfigValueError, match="AbortController"):
        await case.ask(signal="stop")
    assert case.controller.signal._listeners == []


def test_a_signal_of_an_engine_without_models_changes_no_error() -> None:
    async def main() -> None:
        engine = MLCEngine({"app_config": AppConfig([])}, host=FakeHost())
        with pytest.raises(ModelNotLoadedError):
            await engine.embeddings.create(input="x", signal=AbortController().signal)

    asyncio.run(main())
