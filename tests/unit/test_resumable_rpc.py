"""Resumable generations through the worker's messages: our proxy's and npm's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from py_engine.errors import ResumableSessionActiveError, ResumableSessionNotFoundError
from tests.support.engines import engine_that_says
from tests.support.worker_pair import WorkerPair, text_of

TEXT = "Once upon a time a fox said hello."
RESUMABLE = {"resumable": {"enabled": True, "sessionId": "s"}}
MESSAGES = [{"role": "user", "content": "Hi"}]


async def pair_with_a_cut_off_session() -> tuple[WorkerPair, str]:
    """Return a client whose session "s" was dropped, and what its stream had said."""
    pair = WorkerPair(await engine_that_says(TEXT))
    await pair.client.reload("model")
    stream = await pair.client.chat.completions.create(
        messages=MESSAGES, stream=True, extra_body=RESUMABLE, temperature=0
    )
    text = ""
    for _ in range(7):
        text += (await anext(stream)).choices[0].delta.content or ""
    with pytest.raises(ResumableSessionActiveError):
        await pair.client.resume_chat_completion("s")
    await stream.aclose()
    return pair, text


def test_the_proxy_goes_on_with_a_stream() -> None:
    async def run() -> None:
        pair, text = await pair_with_a_cut_off_session()
        client = pair.client
        (probe,) = await client.list_resumable_sessions()
        assert (probe.sessionId, probe.resumable, probe.emittedTokens) == ("s", True, 7)
        stored = await client.resume_chat_completion("s")
        assert (stored.recoveredText, stored.recoveryMode) == (text, "text_only")
        rest = await client.resume_chat_completion("s", continue_generation=True, stream=True)
        assert text + await text_of(rest) == TEXT
        whole = await client.resume_chat_completion("s", continue_generation=True, stream=True)
        assert whole.recoveredText == TEXT
        await client.delete_resumable_session("s")
        assert await client.list_resumable_sessions() == []
        with pytest.raises(ResumableSessionNotFoundError):
            await client.resume_chat_completion("s", continue_generation=True, stream=True)

    asyncio.run(run())


def test_the_proxy_gets_the_whole_reply() -> None:
    async def run() -> None:
        pair, _ = await pair_with_a_cut_off_session()
        result = await pair.client.resume_chat_completion("s", continue_generation=True)
        assert result.completion.choices[0].message.content == result.recoveredText == TEXT
        assert (result.recoveryMode, result.replayedTokens) == ("token_replay", 7)

    asyncio.run(run())


def test_a_worker_that_was_replaced_loads_the_model_again() -> None:
    async def run() -> None:
        pair, text = await pair_with_a_cut_off_session()
        await pair.engine.unload()
        pair.handler._loads.loaded = None  # as in a worker that starts anew
        rest = await pair.client.resume_chat_completion("s", continue_generation=True, stream=True)
        assert text + await text_of(rest) == TEXT

    asyncio.run(run())


async def asked(pair: WorkerPair, kind: str, content: Any) -> Any:
    """Return the content of the reply to a message of npm's client."""
    before = len(pair.transport.received)
    await pair.handler.on_message({"kind": kind, "uuid": "u", "content": content})
    (reply,) = pair.transport.received[before:]
    assert reply["kind"] == "return", reply
    return reply.get("content")


def test_npms_messages() -> None:
    async def run() -> None:
        pair, text = await pair_with_a_cut_off_session()
        (probe,) = await asked(pair, "listResumableSessions", None)
        assert probe.keys() == {
            "sessionId",
            "resumable",
            "reason",
            "modelId",
            "emittedTokens",
            "processedSeqLen",
            "recoveryMode",
        }
        stored = await asked(pair, "resumeChatCompletion", {"sessionId": "s"})
        assert stored["recoveredText"] == text
        options = {"continueGeneration": True, "stream": True}
        content = {"sessionId": "s", "options": options, "streamId": "stream"}
        assert await asked(pair, "resumeChatCompletionStreamInit", content) is None
        rest = ""
        while chunk := await asked(pair, "completionStreamNextChunk", {"streamId": "stream"}):
            rest += chunk["choices"][0]["delta"].get("content") or ""
        assert text + rest == TEXT
        result = await asked(pair, "resumeChatCompletionStreamInit", content)
        assert {
            "sessionId": "s",
            "recoveredText": TEXT,
            "emittedTokens": result["emittedTokens"],
            "processedSeqLen": result["processedSeqLen"],
            "replayedTokens": 0,
            "recoveryMode": "text_only",
        }.items() <= result.items()
        await asked(pair, "deleteResumableSession", {"sessionId": "s"})
        assert await asked(pair, "listResumableSessions", None) == []

    asyncio.run(run())
