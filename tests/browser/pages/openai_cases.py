"""Cases of tests/browser/test_openai_client.py: OpenAI's client on the embedded model.

They run in the worker on an MLCEngine, and on the page on a proxy: `run_case(name, engine)` runs
one and returns "" or what went wrong.
"""

import asyncio
import traceback
from typing import Literal

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, Field

from py_engine.openai_transport import async_openai

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
STORY = [{"role": "user", "content": "Tell me a story about a brave little fox."}]


def ask(client, **fields):
    options = {"model": MODEL, "messages": STORY, "temperature": 0, "max_tokens": 12}
    return client.chat.completions.create(**(options | fields))


async def text_of(stream):
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def error_of(awaitable):
    try:
        await awaitable
    except openai.OpenAIError as error:
        return error
    raise AssertionError("nothing was raised")


def same(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


async def case_answers_whole_and_streamed(client):
    whole = await ask(client)
    assert isinstance(whole, ChatCompletion), whole
    same((whole.choices[0].finish_reason, whole.usage.completion_tokens), ("length", 12))
    stream = await ask(client, stream=True, stream_options={"include_usage": True})
    *chunks, last = [chunk async for chunk in stream]
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks), chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    same(text, whole.choices[0].message.content)
    same((len(chunks) > 5, last.usage.completion_tokens), (True, 12))


async def case_errors_are_the_clients(client):
    error = await error_of(ask(client, top_p=5))
    assert isinstance(error, openai.BadRequestError), error
    same(error.param, "top_p")
    error = await error_of(ask(client, model="no-such-model"))
    assert isinstance(error, openai.NotFoundError), error
    same(error.code, "model_not_found")
    error = await error_of(ask(client, messages=[{"role": "user", "content": "word " * 5000}]))
    assert isinstance(error, openai.BadRequestError), error
    same(error.code, "context_length_exceeded")
    error = await error_of(client.embeddings.create(model=MODEL, input="fox"))
    assert isinstance(error, openai.APIStatusError), error
    error = await error_of(client.responses.create(model=MODEL, input="fox"))
    assert isinstance(error, openai.NotFoundError), error


async def case_stream_that_is_left_frees_the_model(client):
    async for _ in await ask(client, stream=True, max_tokens=2000):
        break
    stream = await ask(client, stream=True, max_tokens=2000)
    await anext(stream)
    await stream.close()
    reader = asyncio.ensure_future(text_of(await ask(client, stream=True, max_tokens=2000)))
    await asyncio.sleep(0.2)
    reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled(), reader
    same((await ask(client)).usage.completion_tokens, 12)


async def case_timeout_frees_the_model(client):
    error = await error_of(ask(client, max_tokens=2000, timeout=0.3))
    assert isinstance(error, openai.APITimeoutError), error
    same((await asyncio.wait_for(ask(client), 10)).usage.completion_tokens, 12)


async def case_requests_at_once_wait_for_each_other(client):
    whole, streamed, other = await asyncio.gather(
        ask(client), text_of(await ask(client, stream=True)), ask(client, max_tokens=3)
    )
    same(streamed, whole.choices[0].message.content)
    assert streamed.startswith(other.choices[0].message.content), other


class Home(BaseModel):
    kind: Literal["den", "tree", "house"]
    rooms: int = Field(ge=1, le=9)


class Animal(BaseModel):
    """An animal of a story."""

    name: Literal["Rusty", "Bella"]
    colors: list[Literal["red", "brown"]] = Field(max_length=3)
    home: Home | None
    is_brave: bool


async def case_parse_returns_a_model(client):
    reply = await client.chat.completions.parse(
        model=MODEL, messages=STORY, response_format=Animal, temperature=1.5, max_tokens=300
    )
    assert isinstance(reply.choices[0].message.parsed, Animal), reply
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "animal"}}}
    error = await error_of(ask(client, response_format=form))
    assert isinstance(error, openai.BadRequestError), error
    same(error.type, "InvalidResponseFormatError")


async def case_tool_calls_are_streamed_and_parsed(client):
    async with client.chat.completions.stream(
        model=MODEL,
        messages=STORY,
        tools=[openai.pydantic_function_tool(Home)],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
    ) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds, kinds
    (call,) = final.choices[0].message.tool_calls
    same((final.choices[0].finish_reason, call.function.name), ("tool_calls", "Home"))
    assert isinstance(call.function.parsed_arguments, Home), call


async def case_completions_of_several_prompts(client):
    reply = await client.completions.create(
        model=MODEL, prompt=["Once upon a", "The end"], max_tokens=3, temperature=0, logprobs=1
    )
    first, second = reply.choices
    assert first.text.startswith(" time"), first
    same((second.index, len(second.logprobs.tokens), reply.usage.completion_tokens), (1, 3, 6))


async def case_models_are_listed(client):
    same([model.id async for model in client.models.list()], [MODEL])
    same((await client.models.retrieve(MODEL)).id, MODEL)


async def run_case(name, engine):
    try:
        async with async_openai(engine) as client:
            await globals()[f"case_{name}"](client)
    except Exception:
        return traceback.format_exc()
    return ""
