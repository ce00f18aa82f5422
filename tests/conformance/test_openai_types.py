"""Responses validate against the types of the `openai` package, strictly."""

from __future__ import annotations

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from py_engine.api.responses import ResponseMaker, usage
from py_engine.generation import Statistics

STATISTICS = Statistics(12, 5, 4, prefill_s=0.5, decode_s=2.0)
USAGE = usage(STATISTICS, prompt_tokens=6, e2e_latency_s=3.0)


def test_completion() -> None:
    response = ResponseMaker("m").completion([("Hello", "stop"), ("", "length")], USAGE)
    parsed = ChatCompletion.model_validate(response.to_dict(), strict=True)
    assert [choice.message.content for choice in parsed.choices] == ["Hello", ""]
    assert [choice.index for choice in parsed.choices] == [0, 1]
    assert parsed.model_extra == {}
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == 11
    assert parsed.usage.model_extra is not None
    assert sorted(parsed.usage.model_extra["extra"]) == [
        "decode_tokens_per_s",
        "e2e_latency_s",
        "prefill_tokens_per_s",
        "time_per_output_token_s",
        "time_to_first_token_s",
    ]


def test_chunks() -> None:
    maker = ResponseMaker("m", include_usage=True)
    chunks = [maker.text_chunk("Hel"), maker.text_chunk("lo"), *maker.final_chunks("stop", USAGE)]
    parsed = [ChatCompletionChunk.model_validate(c.to_dict(), strict=True) for c in chunks]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in parsed}) == 1
    deltas = [choice.delta for chunk in parsed for choice in chunk.choices]
    assert [delta.role for delta in deltas] == ["assistant", None, None]
    assert [delta.content for delta in deltas] == ["Hel", "lo", None]
    assert [c.finish_reason for p in parsed for c in p.choices] == [None, None, "stop"]
    assert parsed[-1].choices == []
    assert parsed[-1].usage is not None
    assert [chunk.usage for chunk in parsed[:-1]] == [None] * 3


def test_stream_without_text_or_usage() -> None:
    chunks = ResponseMaker("m").final_chunks("stop", None)
    parsed = [ChatCompletionChunk.model_validate(c.to_dict(), strict=True) for c in chunks]
    assert [p.choices[0].delta.content for p in parsed] == ["", None]
    assert parsed[0].choices[0].delta.role == "assistant"
    assert all("usage" not in chunk for chunk in chunks)
