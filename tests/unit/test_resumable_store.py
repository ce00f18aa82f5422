"""What is told of stored sessions: whole, damaged, empty, and written by WebLLM."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from py_engine.errors import ModelFileFormatError
from py_engine.models.base import Draw
from py_engine.resumable.journal import Record, RecordType, encoded, scan
from py_engine.resumable.state import SessionState, state_of
from py_engine.resumable.store import JOURNAL_FILE, MANIFEST_FILE, SessionStore
from tests.support.memory_sessions import MemorySessions

BEGIN = (RecordType.SESSION_BEGIN, {"sessionId": "s", "modelId": "m", "request": {"n": 1}})
PROMPT = (RecordType.PROMPT_TOKENS, {"tokenIds": [1, 2, 3]})
SETTINGS = {"enabled": True, "sessionId": "s"}
OWN = {"seed": 1, "modelConfig": {}}
CONFIG = (RecordType.GENERATION_CONFIG, {"config": {"resumable": SETTINGS, "pywebllm": OWN}})
TOKEN = (RecordType.GENERATED_TOKEN, {"globalTokenPos": 3, "tokenId": 9, "textDelta": "Hi"})
FINISHED = (RecordType.GENERATION_FINISHED, {"finishReason": "stop", "emittedTokens": 1})

Content = tuple[RecordType, dict[str, Any]]


def journal(*contents: Content) -> bytes:
    return b"".join(
        encoded(Record(kind, number, 0, payload))
        for number, (kind, payload) in enumerate(contents, 1)
    )


def state(*contents: Content) -> SessionState:
    return state_of("s", scan(journal(*contents)), {})


def probes(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return asyncio.run(SessionStore(MemorySessions({"s": files})).probes())


@pytest.mark.parametrize(
    ("contents", "mode", "reason"),
    [
        ((), "none", "missing journal records"),
        ((BEGIN,), "none", "the journal's beginning is not sound"),
        ((BEGIN, PROMPT), "none", "the journal's beginning is not sound"),
        ((BEGIN, PROMPT, CONFIG), "token_replay", "generation incomplete"),
        ((BEGIN, PROMPT, CONFIG, TOKEN), "token_replay", "generation incomplete"),
        ((BEGIN, PROMPT, CONFIG, TOKEN, FINISHED), "none", "generation finished"),
        ((BEGIN, CONFIG, TOKEN), "text_only", "the journal's beginning is not sound"),
    ],
)
def test_how_far_a_session_can_be_recovered(
    contents: tuple[Content, ...], mode: str, reason: str
) -> None:
    manifest = {"sessionId": "s", "modelId": "m", "createdAtMs": 1, "updatedAtMs": 1}
    files = {MANIFEST_FILE: json.dumps(manifest).encode(), JOURNAL_FILE: journal(*contents)}
    (probe,) = probes(files)
    assert probe["reason"].startswith(reason)
    assert (probe["recoveryMode"], probe["resumable"]) == (mode, mode == "token_replay")
    assert (probe["sessionId"], probe["modelId"]) == ("s", "m")


def test_a_damaged_or_lost_manifest_changes_nothing() -> None:
    data = journal(BEGIN, PROMPT, CONFIG, TOKEN)
    (probe,) = probes({JOURNAL_FILE: data})
    assert (probe["modelId"], probe["emittedTokens"], probe["processedSeqLen"]) == ("m", 1, 4)
    for manifest in (b"", b"{", b"\xff", b"[]"):
        assert probes({JOURNAL_FILE: data, MANIFEST_FILE: manifest}) == [probe]


def test_a_lost_end_is_told() -> None:
    (probe,) = probes({JOURNAL_FILE: journal(BEGIN, PROMPT, CONFIG, TOKEN)[:-1]})
    assert probe["resumable"]
    assert probe["reason"] == ("generation incomplete; the journal's end is lost (partial_record)")


def test_an_empty_folder_is_no_session() -> None:
    assert probes({}) == []


def test_a_journal_of_another_session_is_told_of_and_not_used() -> None:
    other = (RecordType.SESSION_BEGIN, {"sessionId": "other"})
    (probe,) = probes({JOURNAL_FILE: journal(other)})
    assert not probe["resumable"]
    assert "sessionId is 'other'" in probe["reason"]
    with pytest.raises(ModelFileFormatError, match=r"record 2.*tokenIds is 'x'"):
        state(BEGIN, (RecordType.PROMPT_TOKENS, {"tokenIds": "x"}))


def test_a_session_of_webllm_gives_its_text() -> None:
    """Text deltas replace the end of the text, counted in UTF-16 units."""
    tokens = [("🦊 a", 0), ("b�", 4), ("é", 5)]
    found = state(
        BEGIN,
        PROMPT,
        (RecordType.ASSISTANT_PREFIX_TOKENS, {"tokenIds": [4]}),
        (RecordType.GENERATION_CONFIG, {"config": {"resumable": SETTINGS}}),
        *(
            (
                RecordType.GENERATED_TOKEN,
                {"tokenId": 1, "textDelta": text, "textPrefixLength": kept, "rngState": {}},
            )
            for text, kept in tokens
        ),
    )
    assert (found.content, found.prompt) == ("🦊 abé", (1, 2, 3, 4))
    probe = found.probe()
    assert (probe["recoveryMode"], probe["resumable"]) == ("text_only", False)
    assert "written by WebLLM" in probe["reason"]
    assert probe["processedSeqLen"] == 7


def test_draws_are_read_to_the_last_bit() -> None:
    payload = {**TOKEN[1], "logprob": -0.1234567891234, "top": [[9, -0.1], [3, -9999.0]]}
    found = state(BEGIN, PROMPT, CONFIG, (RecordType.GENERATED_TOKEN, payload))
    assert found.draws == [Draw(9, -0.1234567891234, ((9, -0.1), (3, -9999.0)))]


def test_the_message_has_what_came_beside_its_content() -> None:
    thoughts = {"tokenId": 1, "textDelta": "", "deltas": [{"reasoning_content": "Hm"}]}
    found = state(BEGIN, PROMPT, CONFIG, (RecordType.GENERATED_TOKEN, thoughts), TOKEN)
    assert found.message() == {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "reasoning_content": "Hm",
    }
