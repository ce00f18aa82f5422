"""OpenAI's client on MLCEngine and on its proxy: readers that leave, wait and read in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import openai
import pytest

from py_engine.engine import MLCEngine
from py_engine.openai_transport import async_openai
from py_engine.tokenizer import tokenizer_from_json
from tests.support.canned_engine import MESSAGES, MODEL, ask
from tests.support.fake_host import END, FakeHost
from tests.support.tokenizer_files import tokenizer_json
from tests.support.worker_pair import WorkerPair

WORDS = ["The", " quick", " brown", " fox"]


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; nothing may hang."""
    asyncio.run(asyncio.wait_for(test, 10))


def ids_of(text: str) -> list[int]:
    return asyncio.run(tokenizer_from_json(tokenizer_json("gpt2"))).encode(text)


IDS = ids_of("".join(WORDS))


class Subject:
    """MLCEngine over a scripted model, itself or behind a proxy, and a client of it."""

    def __init__(self, kind: str) -> None:
        self.host = FakeHost(MODEL)
        self.host.scripts = {MODEL: [*IDS, END]}
        engine = MLCEngine({"app_config": self.host.app_config}, host=self.host)
        self.engine: Any = engine if kind == "engine" else WorkerPair(engine).client
        self.client = async_openai(self.engine)

    async def loaded(self) -> Subject:
        await self.engine.reload(MODEL)
        return self

    @property
    def model(self) -> Any:
        return self.host.loaded[0]

    async def assert_free(self) -> None:
        """Ask once more: it is answered only by a model that nobody holds."""
        found = await asyncio.wait_for(ask(self.client), 5)
        assert found.choices[0].message.content == "".join(WORDS)
        assert self.model.in_flight == 0


subjects = pytest.mark.parametrize("kind", ["engine", "proxy"])


@subjects
def test_mlc_engine_answers_streams_and_lists_its_model(kind: str) -> None:
    async def test() -> None:
        subject = await Subject(kind).loaded()
        found = await ask(subject.client)
        assert found.choices[0].message.content == "".join(WORDS)
        chunks = [piece async for piece in await ask(subject.client, stream=True)]
        text = "".join(piece.choices[0].delta.content or "" for piece in chunks)
        assert text == "".join(WORDS)
        assert [model.id async for model in subject.client.models.list()] == [MODEL]
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(subject.client, top_p=5)
        assert caught.value.param == "top_p"
        with pytest.raises(openai.NotFoundError) as not_found:
            await subject.client.chat.completions.create(model="other", messages=MESSAGES)
        assert not_found.value.code == "model_not_found"
        long: Any = [{"role": "user", "content": "a " * 500}]
        with pytest.raises(openai.BadRequestError) as too_long:
            await subject.client.chat.completions.create(model=MODEL, messages=long)
        assert too_long.value.code == "context_length_exceeded"

    run(test())


@subjects
@pytest.mark.parametrize("how", ["close", "block", "client", "cancel", "timeout", "drop", "unread"])
def test_stream_that_is_left_frees_the_model(kind: str, how: str) -> None:
    async def test() -> None:
        subject = await Subject(kind).loaded()
        stream = await ask(subject.client, stream=True, timeout=0.02 if how == "timeout" else None)
        if how != "unread":
            await anext(stream)
        if how == "close":
            await stream.close()
            await stream.close()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        elif how == "block":
            async with stream:
                await anext(stream)
        elif how == "client":
            await subject.client.close()
            subject.client = async_openai(subject.engine)
        elif how in ("cancel", "timeout"):
            subject.model.gate = gate = asyncio.Event()
            reader = asyncio.ensure_future(read_all(stream))
            await asyncio.sleep(0.001)
            if how == "cancel":
                reader.cancel()
                await asyncio.sleep(0.001)
            else:
                asyncio.get_running_loop().call_later(0.05, gate.set)
            gate.set() if how == "cancel" else None
            with pytest.raises(
                asyncio.CancelledError if how == "cancel" else openai.APITimeoutError
            ):
                await reader
            subject.model.gate = None
        elif how == "drop":
            del stream
        await subject.assert_free()

    run(test())


async def read_all(stream: Any) -> str:
    pieces = [piece.choices[0].delta.content or "" async for piece in stream]
    return "".join(pieces)


@subjects
def test_half_read_stream_does_not_block_who_comes_after_it(kind: str) -> None:
    async def test() -> None:
        subject = await Subject(kind).loaded()
        stream = await ask(subject.client, stream=True)
        async for _ in stream:
            break
        await subject.assert_free()
        assert await read_all(stream) == "".join(WORDS[1:])

    run(test())


@subjects
def test_streams_can_be_read_in_turns(kind: str) -> None:
    async def test() -> None:
        subject = await Subject(kind).loaded()
        streams = [await ask(subject.client, stream=True) for _ in range(3)]
        starts = [(await anext(stream)).choices[0].delta.content for stream in streams]
        more = [(await anext(stream)).choices[0].delta.content for stream in streams]
        rest = [await read_all(stream) for stream in streams]
        texts = map("".join, zip(starts, more, rest, strict=True))
        assert list(texts) == ["".join(WORDS)] * 3

    run(test())


@subjects
def test_concurrent_requests_all_get_their_answers(kind: str) -> None:
    async def test() -> None:
        subject = await Subject(kind).loaded()

        async def streamed() -> str:
            return await read_all(await ask(subject.client, stream=True))

        async def whole() -> str:
            return str((await ask(subject.client)).choices[0].message.content)

        found = await asyncio.gather(*(call() for _ in range(4) for call in (streamed, whole)))
        assert found == ["".join(WORDS)] * 8

    run(test())


def test_close_ends_a_read_that_is_under_way() -> None:
    async def test() -> None:
        subject = await Subject("engine").loaded()
        stream = await ask(subject.client, stream=True)
        await anext(stream)
        subject.model.gate = gate = asyncio.Event()
        reader = asyncio.ensure_future(read_all(stream))
        await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_soon(gate.set)
        await stream.close()
        assert await reader == ""
        subject.model.gate = None
        await subject.assert_free()

    run(test())
