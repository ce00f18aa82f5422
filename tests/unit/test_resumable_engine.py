"""Generations that are cut off at every record of their journal, and the engine that goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from py_engine.errors import (
    ConfigValueError,
    CrossContextLockUnavailableError,
    DeviceLostError,
    ResumableSessionActiveError,
    ResumableSessionExistsError,
    ResumableSessionNotFoundError,
    StorageError,
    StorageFullError,
    UnsupportedFieldsError,
)
from py_engine.resumable.journal import RecordType, encoded, scan
from py_engine.resumable.store import JOURNAL_FILE
from tests.support.engines import CALL, TOOLS, HostedEngine, ask, engine_that_says
from tests.support.memory_sessions import MemorySessions

TEXT = "Once a naïve 🦊 fox said: stop it now, please."
GREEDY = {"temperature": 0}


@pytest.fixture(autouse=True)
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("py_engine.resumable.store._RETRIES_S", (0.02, 0.02))


def asked(session_id: str = "s", **fields: Any) -> dict[str, Any]:
    """Return fields of a request that make it resumable."""
    return {"extra_body": {"resumable": {"enabled": True, "sessionId": session_id, **fields}}}


def sessions_of(engine: HostedEngine) -> MemorySessions:
    sessions = engine.host.sessions
    assert sessions is not None
    return sessions


async def engine_after_a_crash(
    text: str, sessions: MemorySessions, journal: bytes, **config: Any
) -> HostedEngine:
    """Return another tab's engine, to which the crash left this journal."""
    engine = await engine_that_says(text, **config)
    files = {name: dict(data) for name, data in sessions.data.items()}
    files["s"][JOURNAL_FILE] = journal
    engine.host.sessions = MemorySessions(files)
    return engine


async def streamed(stream: Any) -> tuple[str, str, list[Any], Any]:
    """Return a stream's content, reasoning, log-probabilities and last finish reason or usage."""
    content, reasoning, logprobs, last = "", "", [], None
    async for chunk in stream:
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasoning += choice.delta.reasoning_content or ""
            logprobs += choice.logprobs.content if choice.logprobs else []
            last = choice.finish_reason or last
        last = chunk.usage or last
    return content, reasoning, logprobs, last


CASES: list[tuple[str, dict[str, Any]]] = [
    (TEXT, {}),
    (TEXT, GREEDY),
    (TEXT, {"seed": 2**63 + 5, "logprobs": True, "top_logprobs": 2}),
    (TEXT, {"stop": ["it now"]}),
    (TEXT, {"max_tokens": 9, "logprobs": True}),
    ("<think>\nLet me see < 3.\n</think>\n\nYes: 3 < 4.", {**GREEDY, "logprobs": True}),
    (f"I call.\n{CALL}", {"tools": TOOLS}),
    ('{"a": 1}', {"response_format": {"type": "json_object"}}),
    ('{"a": 1}', {**GREEDY, "response_format": {"type": "json_object"}}),
]


@pytest.mark.parametrize(("text", "fields"), CASES, ids=range(len(CASES)))
def test_a_reply_cut_off_at_any_record_ends_as_it_would_have(
    text: str, fields: dict[str, Any]
) -> None:
    async def run() -> None:
        plain = await engine_that_says(text)
        wanted = (await ask(plain, **fields)).to_dict()
        engine = await engine_that_says(text)
        recorded = (await ask(engine, **fields, **asked())).to_dict()
        assert comparable(recorded) == comparable(wanted)
        sessions = sessions_of(engine)
        assert not sessions.held
        assert not sessions.open_files
        records = scan(sessions.data["s"][JOURNAL_FILE]).records
        n_tokens = wanted["usage"]["completion_tokens"]
        assert len(records) == 3 + n_tokens + 1
        for n in range(3, len(records)):
            journal = b"".join(map(encoded, records[:n]))
            torn = journal + encoded(records[n])[: 7 * n % 40]
            engine = await engine_after_a_crash(text, sessions, torn)
            (probe,) = await engine.list_resumable_sessions()
            assert (probe.recoveryMode, probe.emittedTokens) == ("token_replay", n - 3)
            base = await engine.resume_chat_completion("s")
            result = await engine.resume_chat_completion("s", True)
            assert comparable(result.completion.to_dict()) == comparable(wanted)
            assert result.recoveredText == (wanted["choices"][0]["message"]["content"] or "")
            assert result.recoveredText.startswith(base.recoveredText)
            assert [result.emittedTokens, result.replayedTokens] == [n_tokens, n - 3]
            assert (await engine.list_resumable_sessions())[0].reason == "generation finished"

    asyncio.run(run())


def comparable(completion: dict[str, Any]) -> Any:
    """Return what does not differ from one run to the next."""
    (choice,) = completion["choices"]
    for call in choice["message"].get("tool_calls", ()):
        call["id"] = "id"
    usage = completion["usage"]
    return [choice, usage["completion_tokens"], usage["prompt_tokens"]]


@pytest.mark.parametrize(("text", "fields"), CASES[:6], ids=range(6))
def test_a_stream_goes_on_after_the_stored_text(text: str, fields: dict[str, Any]) -> None:
    async def run() -> None:
        engine = await engine_that_says(text)
        stream = await ask(
            engine, **fields, **asked(), stream=True, stream_options={"include_usage": True}
        )
        content, reasoning, logprobs, usage = await streamed(stream)
        sessions = sessions_of(engine)
        records = scan(sessions.data["s"][JOURNAL_FILE]).records
        for n in range(3, len(records)):
            journal = b"".join(map(encoded, records[:n]))
            engine = await engine_after_a_crash(text, sessions, journal)
            base = await engine.resume_chat_completion("s")
            rest = await streamed(await engine.resume_chat_completion("s", True, True))
            assert base.recoveredText + rest[0] == content
            assert (base.message.reasoning_content or "") + rest[1] == reasoning
            assert rest[2] == logprobs[len(logprobs) - len(rest[2]) :]
            assert rest[3].completion_tokens == usage.completion_tokens
            whole = await engine.resume_chat_completion("s")
            assert whole.recoveredText == content

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "is_exact"), [(GREEDY, True), ({"seed": 3}, True), ({"temperature": 1.0}, False)]
)
def test_what_only_the_request_decides_is_replayed_by_decode_steps(
    fields: dict[str, Any], is_exact: bool
) -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        await ask(engine, **fields, **asked())
        (sampling,) = engine.host.loaded[0].samplings
        prompt = [token for chunk in engine.host.loaded[0].chunks for token in chunk]
        sessions = sessions_of(engine)
        records = scan(sessions.data["s"][JOURNAL_FILE]).records
        journal = b"".join(map(encoded, records[:28]))
        engine = await engine_after_a_crash(TEXT, sessions, journal)
        await engine.resume_chat_completion("s", True)
        model = engine.host.loaded[0]
        drawn = [record.payload["tokenId"] for record in records[3:28]]
        assert model.samplings == [sampling]
        assert model.replayed == (drawn if is_exact else [])
        prefilled = [token for chunk in model.chunks for token in chunk]
        assert prefilled == prompt + ([] if is_exact else drawn)
        assert model.sequence[len(prompt) :][:25] == drawn

    asyncio.run(run())


def test_the_next_turn_reuses_a_resumed_reply() -> None:
    async def run() -> list[int]:
        engine = await engine_that_says(TEXT)
        await ask(engine, **GREEDY, **asked())
        sessions = sessions_of(engine)
        journal = cut(sessions, 10)
        engine = await engine_after_a_crash(TEXT, sessions, journal)
        result = await engine.resume_chat_completion("s", True)
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": result.recoveredText},
            {"role": "user", "content": "And?"},
        ]
        reply = await engine.chat.completions.create(messages=messages)
        return [reply.usage.prompt_tokens_details.cached_tokens, result.processedSeqLen]

    cached, processed = asyncio.run(run())
    assert cached == processed - 1  # all but the stop token


def cut(sessions: MemorySessions, n_records: int) -> bytes:
    records = scan(sessions.data["s"][JOURNAL_FILE]).records
    return b"".join(map(encoded, records[:n_records]))


def test_exact_durability_writes_each_token_before_it_is_given_out() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        sessions = sessions_of(engine)
        stream = await ask(engine, **asked(), stream=True)
        content = ""
        async for chunk in stream:
            content += chunk.choices[0].delta.content or ""
            records = scan(sessions.data["s"][JOURNAL_FILE]).records
            assert "".join(each.payload.get("textDelta", "") for each in records) == content
        assert sessions.appends == len(records) - 2  # the first three and each other alone

    asyncio.run(run())


def test_relaxed_durability_writes_eight_tokens_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> int:
        engine = await engine_that_says(TEXT)
        reply = await ask(engine, **asked(durabilityMode="relaxed"))
        sessions = sessions_of(engine)
        n_tokens: int = reply.usage.completion_tokens
        assert len(scan(sessions.data["s"][JOURNAL_FILE]).records) == 3 + n_tokens + 1
        assert sessions.appends < 3 + n_tokens // 4
        return sessions.appends

    n_appends = asyncio.run(run())
    monkeypatch.setattr("py_engine.resumable.recorder.RELAXED_S", 0.0)  # a slow model
    with pytest.raises(AssertionError):
        asyncio.run(run())
    assert n_appends > 3


def test_a_session_is_used_once_and_by_one() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        stream = await ask(engine, **asked(), stream=True)
        await anext(stream)
        (probe,) = await engine.list_resumable_sessions()
        assert (probe.resumable, probe.reason) == (False, "generation is running")
        assert probe.modelId == "model"
        for goes_on in (False, True):
            with pytest.raises(ResumableSessionActiveError, match="'s' belongs to a generation"):
                await engine.resume_chat_completion("s", goes_on)
        with pytest.raises(ResumableSessionActiveError):
            await engine.delete_resumable_session("s")
        other = await engine_that_says(TEXT)
        other.host.sessions = sessions_of(engine)
        with pytest.raises(ResumableSessionActiveError):
            await ask(other, **asked())
        await stream.aclose()
        (probe,) = await engine.list_resumable_sessions()
        assert (probe.resumable, probe.reason) == (True, "generation aborted")
        with pytest.raises(ResumableSessionExistsError, match="'s' is there already"):
            await ask(other, **asked())
        result = await other.resume_chat_completion("s", True)
        assert result.recoveredText == TEXT
        await other.delete_resumable_session("s")
        assert await engine.list_resumable_sessions() == []
        assert (await ask(other, **asked())).choices[0].message.content == TEXT

    asyncio.run(run())


def test_a_lock_that_is_held_for_a_moment_more() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        await ask(engine, **asked())
        sessions = sessions_of(engine)
        sessions.held.add("s")  # by the tab that is being closed
        asyncio.get_running_loop().call_later(0.01, sessions.held.discard, "s")
        assert (await engine.resume_chat_completion("s")).recoveredText == TEXT

    asyncio.run(run())


def test_two_continuations_of_one_session() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        await ask(engine, **asked())
        sessions = sessions_of(engine)
        engine = await engine_after_a_crash(TEXT, sessions, cut(sessions, 10))
        first, second = [await engine.resume_chat_completion("s", True, True) for _ in range(2)]
        assert await anext(first)
        await first.aclose()
        with pytest.raises(ResumableSessionActiveError, match="gone on with elsewhere"):
            await anext(second)
        assert (await engine.resume_chat_completion("s", True)).recoveredText == TEXT

    asyncio.run(run())


def test_interrupted_and_failed_generations_can_go_on() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        model = engine.host.loaded[0]
        model.on_step = lambda number: engine.interrupt_generate() if number == 4 else None
        reply = await ask(engine, **asked())
        assert reply.choices[0].finish_reason == "abort"
        assert (await engine.list_resumable_sessions())[0].reason == "generation aborted"
        model.on_step = None
        model.fail_at = {9: DeviceLostError("gone")}
        with pytest.raises(DeviceLostError):
            await engine.resume_chat_completion("s", True)
        (probe,) = await engine.list_resumable_sessions()
        assert (probe.reason, probe.resumable) == ("engine error: gone", True)
        model.fail_at = {}
        result = await engine.resume_chat_completion("s", True)
        assert (result.recoveredText, result.replayedTokens) == (TEXT, 9)
        assert not sessions_of(engine).held

    asyncio.run(run())


@pytest.mark.parametrize("is_strict", [False, True])
def test_storage_that_becomes_full(is_strict: bool) -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        sessions = sessions_of(engine)

        def fill_up(_data: bytes) -> None:
            if sessions.appends == 8:
                raise StorageFullError("full")

        sessions.on_append = fill_up
        request = ask(engine, **asked(strictPersistence=is_strict))
        if is_strict:
            with pytest.raises(StorageFullError):
                await request
        else:
            assert (await request).choices[0].message.content == TEXT
        sessions.on_append = None
        assert not sessions.held
        assert not sessions.open_files
        (probe,) = await engine.list_resumable_sessions()
        assert (probe.resumable, probe.emittedTokens) == (True, 7)
        assert (await engine.resume_chat_completion("s", True)).recoveredText == TEXT

    asyncio.run(run())


@pytest.mark.parametrize("is_strict", [False, True])
@pytest.mark.parametrize(
    ("lack", "error"),
    [
        ("file system", StorageError),
        ("locks", CrossContextLockUnavailableError),
        ("room", StorageFullError),
    ],
)
def test_browsers_that_cannot_keep_anything(
    lack: str, error: type[Exception], is_strict: bool
) -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        host = engine.host
        host.sessions = {
            "file system": None,
            "locks": MemorySessions(has_locks=False),
            "room": MemorySessions(capacity=10),
        }[lack]
        request = ask(engine, **asked(strictPersistence=is_strict))
        if is_strict:
            with pytest.raises(StorageError) as caught:
                await request
            assert caught.type is error
        else:
            assert (await request).choices[0].message.content == TEXT
        assert await engine.list_resumable_sessions() == []
        assert (await ask(engine)).choices[0].message.content == TEXT
        if lack == "file system":
            await engine.delete_resumable_session("s")

    asyncio.run(run())


def test_another_model_or_configuration_gives_the_text_and_the_reason() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        await ask(engine, **asked())
        sessions = sessions_of(engine)
        journal = cut(sessions, 10)
        engine = await engine_after_a_crash(TEXT, sessions, journal)
        await engine.reload("model", {"context_window_size": 1000})
        result = await engine.resume_chat_completion("s", True, True)
        assert (result.recoveryMode, result.emittedTokens) == ("text_only", 7)
        assert "context_window_size (2000)" in result.reason
        assert TEXT.startswith(result.recoveredText)
        assert result.recoveredText
        await engine.unload()
        reason = (await engine.resume_chat_completion("s", True)).reason
        assert "its model is 'model', but loaded is nothing" in reason
        host = engine.host
        host.files["other"] = host.files["model"]
        engine.set_app_config(host.app_config)
        await engine.reload("other")
        reason = (await engine.resume_chat_completion("s", True)).reason
        assert "its model is 'model', but loaded is 'other'" in reason
        await engine.reload("model")
        assert (await engine.resume_chat_completion("s", True)).recoveredText == TEXT

    asyncio.run(run())


def test_unknown_sessions_and_ids_that_are_none() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        with pytest.raises(ResumableSessionNotFoundError, match="no resumable session 'other'"):
            await engine.resume_chat_completion("other")
        await engine.delete_resumable_session("other")
        for wrong in ("", "a/b", "..", "x" * 201, "\0"):
            with pytest.raises(ConfigValueError, match="sessionId"):
                await engine.resume_chat_completion(wrong)
            with pytest.raises(ConfigValueError, match="sessionId"):
                await engine.delete_resumable_session(wrong)

    asyncio.run(run())


def test_a_logit_processor_is_refused_and_one_that_came_later_gives_the_text() -> None:
    class Processor:
        def process_logits(self, logits: Any) -> Any:
            return logits

        def process_sampled_token(self, token: int) -> None:
            pass

        def reset_state(self) -> None:
            pass

    async def run() -> None:
        engine = await engine_that_says(TEXT)
        await ask(engine, **asked())
        sessions = sessions_of(engine)
        engine = await engine_after_a_crash(TEXT, sessions, cut(sessions, 10))
        engine.set_logit_processor_registry({"model": Processor()})
        result = await engine.resume_chat_completion("s", True)
        assert (result.recoveryMode, "logit processor" in result.reason) == ("text_only", True)
        with pytest.raises(UnsupportedFieldsError, match="the model has a logit processor"):
            await ask(engine, **asked("other"))

    asyncio.run(run())


def test_an_unrecorded_request_touches_no_storage() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        engine.host.sessions = None
        assert (await ask(engine)).choices[0].message.content == TEXT
        off = {"extra_body": {"resumable": {"enabled": False}}}
        assert (await ask(engine, **off)).choices[0].message.content == TEXT

    asyncio.run(run())


def test_the_journal_has_what_webllm_expects() -> None:
    async def run() -> None:
        engine = await engine_that_says(TEXT)
        await ask(engine, **asked(), seed=5, temperature=0.25)
        records = scan(sessions_of(engine).data["s"][JOURNAL_FILE]).records
        kinds = [record.type for record in records]
        assert kinds[:4] == [1, 2, 4, 5]
        assert kinds[-1] == RecordType.GENERATION_FINISHED
        begin, prompt, config, token = (record.payload for record in records[:4])
        assert (begin["sessionId"], begin["modelId"]) == ("s", "model")
        assert begin["request"]["messages"] == [{"role": "user", "content": "Hi"}]
        assert config["config"]["resumable"] == {
            "enabled": True,
            "sessionId": "s",
            "checkpointIntervalTokens": 512,
            "checkpointPrompt": True,
            "durabilityMode": "exact",
            "strictPersistence": False,
            "storeCheckpointLogits": True,
        }
        assert config["config"]["generationConfig"]["temperature"] == 0.25
        assert token["globalTokenPos"] == len(prompt["tokenIds"])
        assert records[-1].payload["finishReason"] == "stop"

    asyncio.run(run())
