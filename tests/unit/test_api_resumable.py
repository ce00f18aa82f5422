"""The field `resumable` of chat requests."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from py_engine import errors
from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.resumable import Resumable

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def check(**fields: Any) -> Resumable | None:
    """Return what `resumable` with these fields asks for."""
    request = {**CHAT, "extra_body": {"resumable": fields}}
    return ChatCompletionRequest.from_dict(request).resumable


def test_defaults_are_webllms() -> None:
    checked = check(enabled=True)
    assert checked is not None
    assert uuid.UUID(checked.session_id)
    assert checked.settings == {
        "enabled": True,
        "sessionId": checked.session_id,
        "checkpointIntervalTokens": 512,
        "checkpointPrompt": True,
        "durabilityMode": "exact",
        "strictPersistence": False,
        "storeCheckpointLogits": True,
    }
    assert (checked.is_exact, checked.is_strict) == (True, False)
    assert checked.request["messages"] == CHAT["messages"]


def test_all_fields_in_both_spellings() -> None:
    webllms = {
        "sessionId": "story 1",
        "checkpointIntervalTokens": 64,
        "checkpointPrompt": False,
        "durabilityMode": "relaxed",
        "strictPersistence": True,
        "storeCheckpointLogits": False,
    }
    ours = {
        "session_id": "story 1",
        "checkpoint_interval_tokens": 64,
        "checkpoint_prompt": False,
        "durability_mode": "relaxed",
        "strict_persistence": True,
        "store_checkpoint_logits": False,
    }
    for fields in (webllms, ours, {**webllms, **ours}):
        checked = check(enabled=True, **fields)
        assert checked is not None
        assert checked.settings == {"enabled": True, **webllms}


def test_off() -> None:
    assert check(enabled=False, sessionId=7) is None
    assert ChatCompletionRequest.from_dict({**CHAT, "resumable": None}).resumable is None
    assert ChatCompletionRequest.from_dict(CHAT).resumable is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "resumable.enabled is missing"),
        ({"enabled": "yes"}, "resumable.enabled is 'yes'"),
        ({"sessionId": 7}, "resumable.sessionId is 7"),
        ({"sessionId": ""}, "sessionId is ''"),
        ({"sessionId": "a/b"}, "sessionId is 'a/b'"),
        ({"sessionId": ".."}, "sessionId is '..'"),
        ({"sessionId": "a\\b"}, "printable characters"),
        ({"sessionId": "\ud800"}, "printable characters"),
        ({"sessionId": "x" * 201}, "1 to 200"),
        ({"sessionId": "a", "session_id": "b"}, "session_id and sessionId are both given"),
        ({"checkpointIntervalTokens": 0}, "checkpointIntervalTokens is 0"),
        ({"durabilityMode": "eventual"}, "'exact' or 'relaxed'"),
        ({"strictPersistence": 1}, "strictPersistence is 1"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(errors.ConfigValueError) as caught:
        check(**({"enabled": True} if fields else {}) | fields)
    assert named in str(caught.value)


def test_one_choice_only() -> None:
    request = {**CHAT, "n": 2, "resumable": {"enabled": True}}
    with pytest.raises(errors.UnsupportedFieldsError, match="n is 2"):
        ChatCompletionRequest.from_dict(request)


def test_no_object() -> None:
    with pytest.raises(errors.ConfigValueError, match="resumable is True"):
        ChatCompletionRequest.from_dict({**CHAT, "resumable": True})
