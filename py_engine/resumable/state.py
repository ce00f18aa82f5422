"""What a session's journal tells of its generation, and whether it can go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from py_engine.api.responses import ChatResponseMaker, ReplyEvent
from py_engine.errors import ModelFileFormatError
from py_engine.json_fields import JsonFields
from py_engine.models.base import Draw
from py_engine.resumable.journal import RecordType, Scan

OWN_CONFIG = "pywebllm"
"""Where in the record of the generation's settings ours are: `seed` and `modelConfig`."""


@dataclass
class SessionState:
    """A generation as far as it is journaled.

    `own` and `settings` are what was written of this engine's settings and of `resumable`, None
    where that is missing. `content` is the message's text so far and `deltas` what else it got.
    `finish_reason` is None unless the generation is complete; `stopped` tells why it is not.
    `n_bytes` is the length of the journal's sound part, `damage` what follows it.
    """

    session_id: str
    model_id: str = ""
    request: Mapping[str, Any] | None = None
    prompt: tuple[int, ...] | None = None
    own: JsonFields | None = None
    settings: Mapping[str, Any] | None = None
    draws: list[Draw] = field(default_factory=list)
    content: str = ""
    deltas: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    stopped: str = "generation incomplete"
    n_records: int = 0
    n_bytes: int = 0
    damage: str | None = None

    @property
    def processed_tokens(self) -> int:
        """The tokens of the prompt and of the reply."""
        return len(self.prompt or ()) + len(self.draws)

    @property
    def obstacle(self) -> str | None:
        """Why the generation cannot go on, whatever is loaded; None when it can."""
        if self.n_records == 0:
            return "missing journal records"
        if self.finish_reason is not None:
            return "generation finished"
        if self.own is None and self.settings is not None:
            return "written by WebLLM, whose random numbers are others"
        if not (self.model_id and self.request and self.prompt and self.own and self.settings):
            return f"the journal's beginning is not sound ({self.damage or 'records are missing'})"
        return None

    def probe(self) -> dict[str, Any]:
        """Return WebLLM's ResumeProbeResult."""
        obstacle, stopped = self.obstacle, self.stopped
        if self.damage is not None:
            stopped += f"; the journal's end is lost ({self.damage})"
        mode = "text_only" if self.draws else "none"
        if obstacle is None:
            mode = "token_replay"
        elif self.finish_reason is not None:
            mode = "none"
        return {
            "sessionId": self.session_id,
            "resumable": obstacle is None,
            "reason": stopped if obstacle is None else obstacle,
            "modelId": self.model_id,
            "emittedTokens": len(self.draws),
            "processedSeqLen": self.processed_tokens,
            "recoveryMode": mode,
        }

    def message(self) -> dict[str, Any]:
        """Return the assistant's message so far, as OpenAI has it."""
        maker = ChatResponseMaker(self.model_id)
        for delta in ({"content": self.content}, *self.deltas):
            maker.add(ReplyEvent(0, delta))
        message: dict[str, Any] = maker.response({}).choices[0].message.to_dict()
        return message


def state_of(session_id: str, scan: Scan, manifest: Mapping[str, Any]) -> SessionState:
    """Return what a journal tells. Raises ModelFileFormatError for payloads of another kind."""
    state = SessionState(
        session_id,
        str(manifest.get("modelId") or ""),
        n_records=len(scan.records),
        n_bytes=scan.n_bytes,
        damage=scan.damage,
    )
    for record in scan.records:
        source = f"journal of session {session_id!r}, record {record.number}"
        reader = _READERS.get(record.type)
        if reader is not None:
            reader(state, JsonFields(record.payload, source))
    return state


def _begin(state: SessionState, payload: JsonFields) -> None:
    if payload.string("sessionId") != state.session_id:
        raise ModelFileFormatError(
            f"{payload.where('sessionId')} is {payload.value('sessionId')!r}. Delete the session."
        )
    state.model_id = payload.string("modelId", state.model_id)
    state.request = payload.object("request").data or None


def _prompt(state: SessionState, payload: JsonFields) -> None:
    state.prompt = payload.integers("tokenIds")


def _prefix(state: SessionState, payload: JsonFields) -> None:
    state.prompt = (*(state.prompt or ()), *payload.integers("tokenIds"))


def _config(state: SessionState, payload: JsonFields) -> None:
    config = payload.object("config")
    state.own = config.object(OWN_CONFIG) if OWN_CONFIG in config else None
    state.settings = config.object("resumable").data or None


def _token(state: SessionState, payload: JsonFields) -> None:
    logprob = payload.value("logprob")
    state.draws.append(
        Draw(
            payload.integer("tokenId", minimum=0),
            logprob if isinstance(logprob, float) else None,
            tuple((int(rival), float(its)) for rival, its in payload.value("top") or ()),
        )
    )
    _add_text(state, payload)


def _finished(state: SessionState, payload: JsonFields) -> None:
    state.finish_reason = payload.string("finishReason", "stop")
    _add_text(state, payload)


def _aborted(state: SessionState, _payload: JsonFields) -> None:
    state.stopped = "generation aborted"


def _failed(state: SessionState, payload: JsonFields) -> None:
    state.stopped = f"engine error: {payload.string('message', '')}"


def _add_text(state: SessionState, payload: JsonFields) -> None:
    if "textPrefixLength" in payload:  # WebLLM's, in UTF-16 units
        kept = 2 * payload.integer("textPrefixLength", minimum=0)
        text = state.content.encode("utf-16-le", "surrogatepass")[:kept]
        state.content = text.decode("utf-16-le", "surrogatepass")
    state.content += payload.string("textDelta", "")
    state.deltas += payload.value("deltas") or ()


_READERS = {
    RecordType.SESSION_BEGIN: _begin,
    RecordType.PROMPT_TOKENS: _prompt,
    RecordType.ASSISTANT_PREFIX_TOKENS: _prefix,
    RecordType.GENERATION_CONFIG: _config,
    RecordType.GENERATED_TOKEN: _token,
    RecordType.GENERATION_FINISHED: _finished,
    RecordType.GENERATION_ABORTED: _aborted,
    RecordType.ENGINE_ERROR: _failed,
}
