"""Responses validate against the types of the `openai` package, strictly.

What OpenAI's types do not have is WebLLM's and listed here: `EXTRA`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from py_engine.api.embedding_responses import embedding_response
from py_engine.api.objects import ApiObject
from py_engine.api.responses import ChatResponseMaker, CompletionResponseMaker, ReplyEvent
from py_engine.api.usage import usage
from py_engine.generation import Latencies, Statistics

STATISTICS = Statistics(
    prefilled_tokens=6,
    cached_tokens=6,
    completion_tokens=5,
    decode_steps=4,
    prefill_s=0.5,
    decode_s=2.0,
    grammar_s=0.1,
)
USAGE = usage(STATISTICS, prompt_tokens=12, cached_tokens=6, e2e_latency_s=3.0)

HEAD = {"id": "x", "created": 1, "model": "m", "object": "chat.completion", "choices": []}

# Fields beside OpenAI's, by type.
EXTRA = {
    "ChatCompletionMessage": {"reasoning_content"},
    "ChoiceDelta": {"reasoning_content"},
    "CompletionUsage": {"extra"},
    "Usage": {"extra"},
    "Logprobs": {"content"},
}

CALLS = [
    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
]
ARGUMENTS = [{"index": 0, "function": {"arguments": '{"a": 1}'}}]


def entry(data: bytes, logprob: float, *top: tuple[bytes, float]) -> dict[str, Any]:
    """Return log-probabilities as generation makes them."""

    def token(data: bytes, logprob: float) -> dict[str, Any]:
        return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": logprob}

    return {**token(data, logprob), "top_logprobs": [token(*each) for each in top]}


def models(value: Any) -> Iterator[BaseModel]:
    """Yield a parsed response and all objects in it."""
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from models(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from models(item)


def parsed(kind: type[BaseModel], response: ApiObject) -> Any:
    """Validate a response strictly and return it; only EXTRA may be beside OpenAI's fields."""
    result = kind.model_validate(response.to_dict(), strict=True)
    for model in models(result):
        assert set(model.model_extra or ()) <= EXTRA.get(type(model).__name__, set()), model
    return result


def chat(events: list[ReplyEvent], **options: Any) -> Any:
    maker = ChatResponseMaker("m", **options)
    for event in events:
        maker.add(event)
    return parsed(ChatCompletion, maker.response(USAGE))


def chat_chunks(events: list[ReplyEvent], **options: Any) -> list[Any]:
    maker = ChatResponseMaker("m", **options)
    chunks = [chunk for event in events for chunk in maker.chunks(event)]
    if options.get("include_usage"):
        chunks.append(maker.usage_chunk(USAGE))
    return [parsed(ChatCompletionChunk, chunk) for chunk in chunks]


TEXT = [
    ReplyEvent(0, {"content": "Hel"}),
    ReplyEvent(0, {"content": "lo"}),
    ReplyEvent(0, finish_reason="stop"),
    ReplyEvent(1, {"content": "Hi"}),
    ReplyEvent(1, finish_reason="length"),
]
TOOLS = [
    ReplyEvent(0, {"reasoning_content": "Hm."}),
    ReplyEvent(0, {"tool_calls": CALLS}),
    ReplyEvent(0, {"tool_calls": ARGUMENTS}),
    ReplyEvent(0, finish_reason="tool_calls"),
]


def test_completion() -> None:
    response = chat(TEXT)
    assert [choice.message.content for choice in response.choices] == ["Hello", "Hi"]
    assert [choice.finish_reason for choice in response.choices] == ["stop", "length"]
    assert [choice.index for choice in response.choices] == [0, 1]
    assert response.usage.total_tokens == 17
    assert response.usage.prompt_tokens_details.cached_tokens == 6
    assert response.usage.completion_tokens_details is None


def test_tool_calls_and_thoughts() -> None:
    (choice,) = chat(TOOLS).choices
    assert choice.message.content is None
    assert choice.message.reasoning_content == "Hm."
    (call,) = choice.message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "f", '{"a": 1}')


def test_chunks() -> None:
    chunks = chat_chunks(TEXT, include_usage=True)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [(c.index, c.delta.role, c.delta.content, c.finish_reason) for c in choices] == [
        (0, "assistant", "Hel", None),
        (0, None, "lo", None),
        (0, None, None, "stop"),
        (1, "assistant", "Hi", None),
        (1, None, None, "length"),
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 17
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * 5
    assert all("usage" in chunk.model_fields_set for chunk in chunks)


def test_chunks_of_tool_calls_and_thoughts() -> None:
    deltas = [chunk.choices[0].delta for chunk in chat_chunks(TOOLS)]
    assert [delta.role for delta in deltas] == ["assistant", None, None, None]
    assert [delta.content for delta in deltas] == [None] * 4
    assert deltas[0].reasoning_content == "Hm."
    assert deltas[1].tool_calls[0].function.name == "f"
    assert deltas[2].tool_calls[0].function.arguments == '{"a": 1}'


def test_stream_without_text_or_usage() -> None:
    chunks = chat_chunks([ReplyEvent(0, finish_reason="stop")])
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


ENTRIES = (
    entry(b"H", -0.5, (b"H", -0.5), (b"J", -1.5)),
    entry("é".encode()[:1], -0.25, (b"i", -0.1)),
    entry("é".encode()[1:], -0.125),
    entry(b"!", -2.0),
)
WITH_LOGPROBS = [
    ReplyEvent(0, {"content": "H"}, ENTRIES[:1]),
    ReplyEvent(0, {"content": "é!"}, ENTRIES[1:]),
    ReplyEvent(0, finish_reason="stop"),
]


def test_logprobs() -> None:
    (choice,) = chat(WITH_LOGPROBS, has_logprobs=True).choices
    tokens = [(each.token, each.logprob) for each in choice.logprobs.content]
    assert tokens == [("H", -0.5), ("�", -0.25), ("�", -0.125), ("!", -2.0)]
    assert [top.token for top in choice.logprobs.content[0].top_logprobs] == ["H", "J"]
    assert bytes(choice.logprobs.content[1].bytes + choice.logprobs.content[2].bytes) == b"\xc3\xa9"
    streamed = chat_chunks(WITH_LOGPROBS, has_logprobs=True)
    entries = [e for c in streamed[:-1] for e in c.choices[0].logprobs.content]
    assert entries == choice.logprobs.content
    assert chat(WITH_LOGPROBS).choices[0].logprobs is None


def text_events(entries: tuple[dict[str, Any], ...] = ENTRIES) -> list[ReplyEvent]:
    return [
        ReplyEvent(0, {"text": "H"}, entries[:1]),
        ReplyEvent(0, {"text": "é!"}, entries[1:]),
        ReplyEvent(0, finish_reason="length"),
    ]


def test_text_completion() -> None:
    maker = CompletionResponseMaker("m", has_logprobs=True)
    for event in text_events():
        maker.add(event)
    (choice,) = parsed(Completion, maker.response(USAGE)).choices
    assert (choice.text, choice.finish_reason) == ("Hé!", "length")
    assert choice.logprobs.tokens == ["H", "�", "�", "!"]
    assert choice.logprobs.token_logprobs == [-0.5, -0.25, -0.125, -2.0]
    assert choice.logprobs.top_logprobs[:2] == [{"H": -0.5, "J": -1.5}, {"i": -0.1, "�": -0.25}]
    assert choice.logprobs.text_offset == [0, 1, 1, 2]
    assert len(choice.logprobs.content) == 4


def test_text_completion_chunks() -> None:
    maker = CompletionResponseMaker("m", include_usage=True, has_logprobs=True)
    chunks = [chunk for event in text_events() for chunk in maker.chunks(event)]
    assert [c.choices[0].finish_reason for c in chunks] == [None, None, "length"]
    offsets = [c.choices[0].logprobs.text_offset for c in chunks]
    assert offsets == [[0], [1, 1, 2], []]
    for chunk in chunks[:-1]:
        # OpenAI's servers send null here too, though the type of their client forbids it.
        chunk.choices[0].finish_reason = "stop"
    texts = [parsed(Completion, chunk).choices[0].text for chunk in chunks]
    assert texts == ["H", "é!", ""]
    assert parsed(Completion, maker.usage_chunk(USAGE)).usage.total_tokens == 17


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings(encoding_format: Any) -> None:
    vectors = [array("f", (0.5, -2.0)), array("f", (1.0, 0.0))]
    response = embedding_response("m", vectors, STATISTICS, encoding_format)
    if encoding_format == "base64":
        # The client's type has only numbers: it decodes what it asked for before it parses.
        for item in response.data:
            assert isinstance(item.embedding, str)
            item.embedding = [0.5]
    result = parsed(CreateEmbeddingResponse, response)
    assert [item.index for item in result.data] == [0, 1]
    assert result.usage.total_tokens == 6


def test_usage_has_webllms_extra() -> None:
    found = parsed(ChatCompletion, ApiObject({**HEAD, "usage": USAGE})).usage
    assert found.extra == {
        "e2e_latency_s": 3.0,
        "prefill_tokens_per_s": 12.0,
        "decode_tokens_per_s": 2.0,
        "time_to_first_token_s": 0.5,
        "time_per_output_token_s": 0.5,
    }


def test_usage_has_details_where_they_are_known() -> None:
    latencies = Latencies([0.1], [0.2], [0.3], [0.4])
    full = usage(
        STATISTICS,
        prompt_tokens=12,
        cached_tokens=6,
        reasoning_tokens=3,
        e2e_latency_s=3.0,
        grammar_init_s=0.25,
        latencies=latencies,
    )
    found = parsed(ChatCompletion, ApiObject({**HEAD, "usage": full})).usage
    assert found.completion_tokens_details.reasoning_tokens == 3
    assert found.extra["grammar_init_s"] == 0.25
    assert found.extra["grammar_per_token_s"] == pytest.approx(0.02)
    assert found.extra["latencyBreakdown"] == {
        "logitProcessorTime": [0.2],
        "logitBiasTime": [],
        "penaltyTime": [],
        "sampleTime": [0.3],
        "totalTime": [0.4],
        "grammarBitmaskTime": [0.1],
    }
