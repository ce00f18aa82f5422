"""WebLLM's `resumable`: how a chat request's generation is kept so that it survives its tab."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from py_engine.errors import ConfigValueError, UnsupportedFieldsError
from py_engine.json_fields import JsonFields

DURABILITY_MODES = ("exact", "relaxed")

_MAX_SESSION_ID = 200

# WebLLM's names, and what the same are called in Python.
_SPELLINGS = {
    "sessionId": "session_id",
    "checkpointIntervalTokens": "checkpoint_interval_tokens",
    "checkpointPrompt": "checkpoint_prompt",
    "durabilityMode": "durability_mode",
    "strictPersistence": "strict_persistence",
    "storeCheckpointLogits": "store_checkpoint_logits",
}


@dataclass(frozen=True)
class Resumable:
    """A checked `resumable` that is enabled.

    `settings` are its fields with their defaults by WebLLM's names; those of checkpoints have no
    effect. `request` is the whole request as plain JSON values.
    """

    settings: Mapping[str, Any]
    request: Mapping[str, Any]

    @property
    def session_id(self) -> str:
        """The name of the session; no two of a site have the same."""
        return str(self.settings["sessionId"])

    @property
    def is_exact(self) -> bool:
        """Whether each token is on the disk before it is given out."""
        return bool(self.settings["durabilityMode"] == "exact")

    @property
    def is_strict(self) -> bool:
        """Whether a failure of the storage ends the generation."""
        return bool(self.settings["strictPersistence"])


def resumable(fields: JsonFields) -> Resumable | None:
    """Return what a request's `resumable` asks for; None where there is none or it is off.

    Errors: ConfigValueError naming the field, UnsupportedFieldsError for several choices.
    """
    if "resumable" not in fields or not fields.object("resumable").boolean("enabled"):
        return None
    if fields.integer("n", 1) > 1:
        raise UnsupportedFieldsError(
            f"request: n is {fields.value('n')}, but a resumable generation has one choice. Leave "
            "n or resumable out."
        )
    given = _in_one_spelling(fields.object("resumable"))
    settings = {
        "enabled": True,
        "sessionId": given.string("sessionId", str(uuid.uuid4())),
        "checkpointIntervalTokens": given.integer("checkpointIntervalTokens", 512, minimum=1),
        "checkpointPrompt": given.boolean("checkpointPrompt", True),
        "durabilityMode": given.string("durabilityMode", DURABILITY_MODES[0]),
        "strictPersistence": given.boolean("strictPersistence", False),
        "storeCheckpointLogits": given.boolean("storeCheckpointLogits", True),
    }
    if settings["durabilityMode"] not in DURABILITY_MODES:
        raise given.invalid("durabilityMode", " or ".join(map(repr, DURABILITY_MODES)))
    check_session_id(settings["sessionId"])
    return Resumable(settings, fields.data)


def check_session_id(session_id: Any) -> None:
    """Raise ConfigValueError unless it can name a session: it becomes a folder's name."""
    if (
        not isinstance(session_id, str)
        or not 0 < len(session_id) <= _MAX_SESSION_ID
        or session_id in (".", "..")
        or not session_id.isprintable()
        or "/" in session_id
        or "\\" in session_id
    ):
        raise ConfigValueError(
            f"sessionId is {session_id!r:.80}, but must be 1 to {_MAX_SESSION_ID} printable "
            "characters without / and \\, such as a UUID."
        )


def _in_one_spelling(fields: JsonFields) -> JsonFields:
    values = dict(fields.data)
    for name, other in _SPELLINGS.items():
        if values.get(other) is None:
            continue
        if values.get(name) is not None and values[name] != values[other]:
            raise ConfigValueError(
                f"{fields.where(other)} and {name} are both given, but mean the same. Leave one "
                "out."
            )
        values[name] = values[other]
    return JsonFields(values, fields.source, path=fields.path, error=ConfigValueError)
