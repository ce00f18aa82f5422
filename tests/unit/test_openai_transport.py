"""OpenAI's own client on an engine with canned answers: what goes in, what comes out, errors."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

import py_engine.errors as errors
from py_engine.openai_transport import BASE_URL, EngineTransport, async_openai
from py_engine.openai_transport.event_stream import EventStream
from py_engine.openai_transport.failures import STATUSES, failure
from py_engine.tooling.steps import ROOT
from tests.support.canned_engine import (
    MESSAGES,
    MODEL,
    CannedEngine,
    ask,
    chunk,
    raising,
    response,
    text_chunks,
)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; nothing may hang."""
    asyncio.run(asyncio.wait_for(test, 10))


# What goes in and what comes out


def test_chat_request_arrives_as_it_was_written() -> None:
    async def test() -> None:
        engine = CannedEngine(lambda request: response({"content": "a"}, {"content": "b"}))
        client = async_openai(engine)
        extra = {"enable_thinking": False, "min_p": 0.1}
        found = await ask(client, n=2, temperature=0, stop=["x"], extra_body=extra)
        assert engine.requests == [
            {"model": MODEL, "messages": MESSAGES, "n": 2, "temperature": 0, "stop": ["x"], **extra}
        ]
        assert isinstance(found, ChatCompletion)
        assert [choice.message.content for choice in found.choices] == ["a", "b"]
        assert found.usage.total_tokens == 7
        assert found.usage.extra == {"x_s": 0.5}

    run(test())


def test_text_of_any_kind_survives() -> None:
    async def test() -> None:
        text = 'data: [DONE]\n\n\r\0"\u2028\\ é 🦊'
        answers = [response({"content": text}), text_chunks(text)]
        client = async_openai(CannedEngine(lambda request: answers.pop(0)))
        assert (await ask(client)).choices[0].message.content == text
        found = [piece async for piece in await ask(client, stream=True)]
        assert found[0].choices[0].delta.content == text

    run(test())


def test_stream_gives_chunks_of_all_choices() -> None:
    async def test() -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        chunks = [
            chunk(0, content="a"),
            chunk(1, content="b"),
            chunk(0, "stop"),
            chunk(1, "length"),
        ]
        client = async_openai(
            CannedEngine(lambda request: [*chunks, {**chunks[0], "choices": [], "usage": usage}])
        )
        found = [piece async for piece in await ask(client, n=2, stream=True)]
        assert all(isinstance(piece, ChatCompletionChunk) for piece in found)
        choices = [piece.choices[0] for piece in found[:-1]]
        assert [(c.index, c.delta.content, c.finish_reason) for c in choices] == [
            (0, "a", None),
            (1, "b", None),
            (0, None, "stop"),
            (1, None, "length"),
        ]
        assert (found[-1].choices, found[-1].usage.total_tokens) == ([], 5)

    run(test())


def test_tool_calls_whole_and_streamed() -> None:
    async def test() -> None:
        call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        deltas = [{"index": 0, **call}, {"index": 0, "function": {"arguments": '{"a": 1}'}}]
        deltas[0]["function"] = {"name": "f", "arguments": ""}
        answers = [
            response({"tool_calls": [call]}, finish_reason="tool_calls"),
            [*(chunk(tool_calls=[delta]) for delta in deltas), chunk(finish_reason="tool_calls")],
        ]
        engine = CannedEngine(lambda request: answers.pop(0))
        client = async_openai(engine)
        tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        found = await ask(client, tools=tools, tool_choice="required", parallel_tool_calls=False)
        assert found.choices[0].message.tool_calls[0].function.name == "f"
        async with client.chat.completions.stream(
            model=MODEL, messages=MESSAGES, tools=tools
        ) as stream:
            final = await stream.get_final_completion()
        (made,) = final.choices[0].message.tool_calls or []
        assert (made.id, made.function.arguments) == ("call_1", '{"a": 1}')
        assert engine.requests[0]["tool_choice"] == "required"
        assert engine.requests[0]["tools"] == engine.requests[1]["tools"] == tools

    run(test())


class Step(BaseModel):
    explanation: str


class Solution(BaseModel):
    steps: list[Step]
    answer: int


def test_parse_sends_a_strict_schema_and_returns_the_model() -> None:
    async def test() -> None:
        solution = Solution(steps=[Step(explanation="add")], answer=3)
        engine = CannedEngine(lambda request: response({"content": solution.model_dump_json()}))
        found = await async_openai(engine).chat.completions.parse(
            model=MODEL, messages=MESSAGES, response_format=Solution
        )
        assert found.choices[0].message.parsed == solution
        form = engine.requests[0]["response_format"]
        assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
        assert form["json_schema"]["schema"]["$defs"]["Step"]["additionalProperties"] is False

    run(test())


def test_parse_reads_the_arguments_of_a_pydantic_tool() -> None:
    async def test() -> None:
        function = {"name": "Step", "arguments": '{"explanation": "add"}'}
        call = {"id": "call_1", "type": "function", "function": function}
        engine = CannedEngine(
            lambda request: response({"tool_calls": [call]}, finish_reason="tool_calls")
        )
        found = await async_openai(engine).chat.completions.parse(
            model=MODEL, messages=MESSAGES, tools=[openai.pydantic_function_tool(Step)]
        )
        (made,) = found.choices[0].message.tool_calls or []
        assert made.function.parsed_arguments == Step(explanation="add")
        assert engine.requests[0]["tools"][0]["function"]["strict"] is True

    run(test())


def test_completions_whole_and_streamed() -> None:
    async def test() -> None:
        choice = {"index": 0, "text": "a", "finish_reason": "stop", "logprobs": None}
        whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL}
        whole["choices"] = [choice]
        answers = [whole, [whole, whole]]
        engine = CannedEngine(lambda request: answers.pop(0))
        client = async_openai(engine)
        found = await client.completions.create(model=MODEL, prompt=["a", "b"], echo=True)
        assert found.choices[0].text == "a"
        stream = await client.completions.create(model=MODEL, prompt="a", stream=True)
        assert [piece.choices[0].text async for piece in stream] == ["a", "a"]
        assert engine.requests[0] == {"model": MODEL, "prompt": ["a", "b"], "echo": True}

    run(test())


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])
def test_embeddings_are_floats_in_either_encoding(options: Any) -> None:
    async def test() -> None:
        vector = [0.25, -1.5]

        def answer(request: dict[str, Any]) -> Any:
            as_text = base64.b64encode(struct.pack("<2f", *vector)).decode()
            found = as_text if request["encoding_format"] == "base64" else vector
            data = [{"object": "embedding", "index": 0, "embedding": found}]
            usage = {"prompt_tokens": 2, "total_tokens": 2}
            return {"object": "list", "model": MODEL, "data": data, "usage": usage}

        found = await async_openai(CannedEngine(answer)).embeddings.create(
            model=MODEL, input="Hi", **options
        )
        assert list(found.data[0].embedding) == vector

    run(test())


def test_models_are_those_that_are_loaded() -> None:
    async def test() -> None:
        engine = CannedEngine(lambda request: None)
        engine.model_id = ["a", "org/b c"]
        client = async_openai(engine)
        assert [model.id async for model in client.models.list()] == ["a", "org/b c"]
        model = await client.models.retrieve("org/b c")
        assert (model.id, model.owned_by, model.object) == ("org/b c", "pywebllm", "model")
        with pytest.raises(openai.NotFoundError, match=r'"d" is not loaded \(loaded: a, org/b c\)'):
            await client.models.retrieve("d")
        engine.model_id = None
        assert [model.id async for model in client.models.list()] == []

    run(test())


def test_raw_responses_are_http() -> None:
    async def test() -> None:
        client = async_openai(CannedEngine(lambda request: response({"content": "a"})))
        raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
        assert (raw.status_code, raw.headers["content-type"]) == (200, "application/json")
        async with client.chat.completions.with_streaming_response.create(
            model=MODEL, messages=MESSAGES
        ) as streamed:
            assert json.loads(await streamed.read()) == response({"content": "a"})

    run(test())


# Errors

# By name: status, code and the client's exception; other classes are their base's.
EXPECTED: dict[str, tuple[int, str, type[openai.APIStatusError]]] = {
    "RequestError": (400, "invalid_request", openai.BadRequestError),
    "UnsupportedFieldsError": (400, "unsupported_parameter", openai.BadRequestError),
    "ContextWindowSizeExceededError": (400, "context_length_exceeded", openai.BadRequestError),
    "UnclearModelToUseError": (400, "model_required", openai.BadRequestError),
    "IncorrectPipelineLoadedError": (400, "model_not_supported", openai.BadRequestError),
    "SpecifiedModelNotFoundError": (404, "model_not_found", openai.NotFoundError),
    "ModelNotFoundError": (404, "model_not_found", openai.NotFoundError),
    "ModelNotLoadedError": (404, "model_not_loaded", openai.NotFoundError),
    "WorkerEngineModelNotLoadedError": (404, "model_not_loaded", openai.NotFoundError),
    "UnsupportedEndpointError": (404, "unknown_endpoint", openai.NotFoundError),
    "DeviceError": (503, "device_error", openai.InternalServerError),
    "DeviceLostError": (503, "device_lost", openai.InternalServerError),
    "WorkerFailedError": (503, "worker_failed", openai.InternalServerError),
    "MLCError": (500, "internal_error", openai.InternalServerError),
}
OURS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.MLCError)
]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_errors_arrive_as_the_clients_own(kind: type[errors.MLCError]) -> None:
    async def test() -> None:
        engine = CannedEngine(raising(kind("request: stop[1].x is 3, but must not.")))
        client = async_openai(engine, max_retries=2)
        names = [base.__name__ for base in kind.__mro__]
        status, code, client_class = EXPECTED[next(name for name in names if name in EXPECTED)]
        for options in ({}, {"stream": True}):
            with pytest.raises(client_class) as caught:
                await ask(client, **options)
            error = caught.value
            assert type(error) is client_class
            assert (error.status_code, error.code) == (status, code)
            assert error.type == ("Error" if kind is errors.RemoteError else kind.__name__)
            assert "stop[1].x is 3, but must not." in str(error)
            assert error.param == ("stop[1].x" if issubclass(kind, errors.RequestError) else None)
        assert len(engine.requests) == 2, "the client tried again"

    run(test())


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("messages[2].content[0] is 3", "messages[2].content[0]"),
        ("request: max_tokens is 5 and max_completion_tokens is 6", "max_tokens"),
        ("request: a.b, c are not supported", "a.b"),
        ("The chat template says no.", None),
    ],
)
def test_param_is_the_field_that_the_text_begins_with(text: str, param: str | None) -> None:
    _, body = failure(errors.ConfigValueError(text))
    assert body["error"] == {
        "message": text,
        "type": "ConfigValueError",
        "param": param,
        "code": "invalid_request",
    }


def test_unknown_exceptions_are_logged_with_their_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        client = async_openai(CannedEngine(lambda request: 1 // 0))
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client)
        assert caught.value.type == "ZeroDivisionError"

    run(test())
    assert "ZeroDivisionError" in caplog.text and "1 // 0" in caplog.text


def test_error_in_the_middle_of_a_stream_is_an_api_error() -> None:
    async def test() -> None:
        lost = errors.DeviceLostError("the device was lost")
        engine = CannedEngine(lambda request: [chunk(content="a"), lost, chunk(content="b")])
        stream = await ask(async_openai(engine, max_retries=2), stream=True)
        assert (await anext(stream)).choices[0].delta.content == "a"
        with pytest.raises(openai.APIError, match="the device was lost") as caught:
            await anext(stream)
        assert (caught.value.type, caught.value.code) == ("DeviceLostError", "device_lost")
        assert (len(engine.requests), engine.ended) == (1, 1)

    run(test())


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "text"),
    [
        ("POST", "/chat/completions", b"{", 400, "not valid JSON: Expecting property name"),
        ("POST", "/chat/completions", b'{"a": "\xff"}', 400, "not valid JSON: 'utf-8' codec"),
        ("POST", "/chat/completions", b"[" * 100_000, 400, "nested deeper than 100"),
        ("POST", "/chat/completions", b"", 400, "not valid JSON"),
        ("POST", "/embeddings", b"[]", 400, "must be a JSON object"),
        ("GET", "/chat/completions", b"", 404, "GET /v1/chat/completions is not served"),
        ("POST", "/responses", b"{}", 404, "POST /v1/chat/completions"),
        ("DELETE", "/models/model", b"", 404, "DELETE /v1/models/model is not served"),
        ("GET", "/models/", b"", 404, 'model "" is not loaded'),
    ],
)
def test_what_is_no_request_is_refused(
    method: str, path: str, content: bytes, status: int, text: str
) -> None:
    async def test() -> None:
        engine = CannedEngine(lambda request: response({"content": "a"}))
        async with httpx2.AsyncClient(
            transport=EngineTransport(engine), base_url=BASE_URL
        ) as client:
            found = await client.request(method, path.removeprefix("/"), content=content)
        assert (found.status_code, found.headers["x-should-retry"]) == (status, "false")
        assert text in found.json()["error"]["message"]
        assert engine.requests == []

    run(test())


def test_engine_without_an_endpoint_has_it_not_found() -> None:
    class Bare:
        pass

    async def test() -> None:
        client = async_openai(Bare())
        with pytest.raises(openai.NotFoundError, match="this engine has no `embedding`"):
            await client.embeddings.create(model=MODEL, input="Hi")
        assert [model async for model in client.models.list()] == []

    run(test())


# Laziness and time


def test_nothing_is_generated_before_it_is_read() -> None:
    async def test() -> None:
        engine = CannedEngine(lambda request: text_chunks("The", " quick", " brown", " fox"))
        stream = await ask(async_openai(engine), stream=True)
        for expected in range(1, 4):
            assert engine.generated == expected - 1
            await anext(stream)
            await asyncio.sleep(0.001)
            assert engine.generated == expected
        await stream.close()
        assert (engine.generated, engine.ended) == (3, 1)

    run(test())


def test_stream_may_be_closed_twice_at_once() -> None:
    closed = []

    async def chunks() -> AsyncIterator[dict[str, Any]]:
        try:
            yield chunk(content="a")
        finally:
            await asyncio.sleep(0.001)
            closed.append(True)

    async def test() -> None:
        stream = EventStream(chunks(), MODEL)
        assert await stream.next()
        await asyncio.gather(stream.aclose(), stream.aclose())
        assert (closed, await stream.next()) == ([True], None)
        stream.abandon()

    run(test())


@pytest.mark.parametrize("how", ["break", "del"])
@pytest.mark.parametrize("then_stream", [False, True])
def test_dropped_stream_is_not_generated_to_its_end(how: str, then_stream: bool) -> None:
    async def test() -> None:
        answers: list[Any] = [text_chunks("a", "b", "c"), [] if then_stream else response()]
        engine = CannedEngine(lambda request: answers.pop(0))
        client = async_openai(engine)
        if how == "break":
            async for _ in await ask(client, stream=True):
                break
        else:
            stream = await ask(client, stream=True)
            await anext(stream)
            del stream
        if then_stream:
            assert [piece async for piece in await ask(client, stream=True)] == []
        else:
            await ask(client)
        await asyncio.sleep(0.001)
        assert (engine.generated, engine.ended) == (1, 1 + then_stream)

    run(test())


def test_timeout_is_the_clients_and_the_generation_is_not_repeated() -> None:
    async def test() -> None:
        engine = CannedEngine(lambda request: asyncio.sleep(30))
        client = async_openai(engine, timeout=0.01)
        with pytest.raises(openai.APITimeoutError):
            await ask(client)
        assert len(engine.requests) == 1
        with pytest.raises(openai.APITimeoutError):
            await ask(client.with_options(max_retries=1))
        assert len(engine.requests) == 3

    run(test())


def test_timeout_of_the_engines_own_is_its_failure() -> None:
    async def test() -> None:
        client = async_openai(CannedEngine(raising(TimeoutError("disk"))), timeout=5)
        with pytest.raises(openai.InternalServerError, match="disk"):
            await ask(client)

    run(test())


# The module itself


def test_example_of_the_documentation() -> None:
    document = (ROOT / "docs" / "openai-client.md").read_text(encoding="utf-8")
    code = document.partition("## In CPython")[2].partition("```python\n")[2].partition("```")[0]
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout == "Hello!\n"


def test_documentation_has_every_code_and_status() -> None:
    document = (ROOT / "docs" / "openai-client.md").read_text(encoding="utf-8")
    table = document.partition("## Errors")[2].partition("## ")[0]
    for kind, status, code in STATUSES:
        (row,) = [line for line in table.splitlines() if f"`{code}`" in line]
        assert f"| {status} |" in row
        assert f"`{kind.__name__}`" in row or kind in (errors.UnsupportedFieldsError, Exception)


def test_client_can_be_configured() -> None:
    client = async_openai(CannedEngine(lambda request: None), timeout=3, organization="us")
    assert (client.timeout, client.max_retries, client.organization) == (3, 0, "us")


def test_import_needs_neither_openai_nor_httpx() -> None:
    code = (
        "import sys, py_engine.openai_transport\n"
        "print([name for name in ('openai', 'httpx', 'httpx2', 'pydantic') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
