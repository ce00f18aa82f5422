"""What `MLCEngine` does with stored sessions: list them, go on with them, delete them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.objects import ApiObject
from py_engine.api.responses import ReplyEvent
from py_engine.api.resumable import Resumable, check_session_id
from py_engine.chat import ChatJob
from py_engine.chat_prompt import chat_prompt
from py_engine.errors import EngineError, StorageError
from py_engine.generation import Seat
from py_engine.host import EngineHost
from py_engine.loaded_model import LoadedModel
from py_engine.model_set import ModelSet
from py_engine.response_stream import ResponseStream
from py_engine.resumable.recorder import JournalRecorder
from py_engine.resumable.replies import RecordedReplies
from py_engine.resumable.state import SessionState
from py_engine.resumable.store import SessionStore

logger = logging.getLogger(__name__)


class ResumableSessions:
    """The stored sessions of a site, and the models that they can go on with."""

    def __init__(self, host: EngineHost, models: ModelSet) -> None:
        self._host = host
        self._models = models

    async def probes(self) -> list[ApiObject]:
        """Return WebLLM's ResumeProbeResult of each; none where nothing can be stored."""
        try:
            store = await self._store()
        except StorageError as error:
            logger.debug("no resumable sessions: %s", error)
            return []
        return [ApiObject(probe) for probe in await store.probes()]

    async def resume(
        self, session_id: str, continue_generation: bool, stream: bool
    ) -> ApiObject | ResponseStream:
        """Do what `MLCEngine.resume_chat_completion` says."""
        began = time.perf_counter()
        check_session_id(session_id)
        store = await self._store()
        async with store.held(session_id):
            state = await store.read(session_id)
        if not continue_generation:
            return _stored(state, state.probe()["reason"])
        model, obstacle = self._model(state)
        if model is None or obstacle is not None:
            logger.warning("session %r cannot go on: %s", session_id, obstacle)
            return _stored(state, str(obstacle))
        job = await _resumed_job(store, state, model, began)
        return ResponseStream(job.chunks()) if stream else _ended(state, await job.complete())

    async def delete(self, session_id: str) -> None:
        """Delete a session, if there is one."""
        check_session_id(session_id)
        try:
            store = await self._store()
        except StorageError:
            return
        await store.delete(session_id)

    async def _store(self) -> SessionStore:
        return SessionStore(await self._host.open_sessions())

    def _model(self, state: SessionState) -> tuple[LoadedModel | None, str | None]:
        """Return the model to go on with, and why that is not possible."""
        if state.obstacle is not None:
            return None, state.obstacle
        if state.model_id not in self._models.model_ids:
            loaded = ", ".join(map(repr, self._models.model_ids)) or "nothing"
            return None, f"its model is {state.model_id!r}, but loaded is {loaded}; reload that one"
        try:
            _, model = self._models.select_language_model(state.model_id, "resume_chat_completion")
        except EngineError as error:
            return None, str(error)
        if model.logit_processor is not None:
            return model, "the model has a logit processor, whose state was not kept"
        return model, _other_config(state, model)


def _other_config(state: SessionState, model: LoadedModel) -> str | None:
    """Return in what the loaded model's configuration is another than the session's."""
    assert state.own is not None
    then = state.own.object("modelConfig").data
    now = json.loads(json.dumps(dict(model.config.data)))
    differ = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if not differ:
        return None
    values = ", ".join(f"{name} ({then.get(name)!r:.80})" for name in differ)
    return (
        f"'{state.model_id}' is loaded with another configuration; reload it with the values that "
        f"it had: {values}"
    )


class _ResumedChatJob(ChatJob):
    """A chat whose reply begins with a replay; a stream of it has only what follows that."""

    async def _choice(
        self, index: int, seat: Seat, *, stream: bool
    ) -> AsyncGenerator[ReplyEvent, None]:
        async with aclosing(super()._choice(index, seat, stream=stream)) as events:
            async for event in events:
                if not (stream and self._first.is_replaying):
                    yield event


async def _resumed_job(
    store: SessionStore, state: SessionState, model: LoadedModel, began: float
) -> _ResumedChatJob:
    """Return the job that goes on with a session. Errors: as `chat_job`."""
    assert state.request is not None and state.settings is not None and state.prompt is not None
    request = replace(
        ChatCompletionRequest.from_dict(state.request),
        resumable=Resumable(state.settings, state.request),
    )
    assert request.resumable is not None
    # The same tokens, where a template that writes the date would have others today.
    prompt = replace(chat_prompt(model, request), token_ids=state.prompt)
    recorder = JournalRecorder(store, request.resumable, prompt.parser(stream=True))
    replies = RecordedReplies(model, state.model_id, request, prompt, began, recorder, state)
    await replies.prepare(prompt.grammar)
    return _ResumedChatJob(state.model_id, request, prompt, replies)


def _stored(state: SessionState, reason: str) -> ApiObject:
    """Return WebLLM's ResumeResult of what is stored, with `reason` and `message` beside it."""
    message = state.message()
    return ApiObject(
        {
            "sessionId": state.session_id,
            "recoveredText": message["content"] or "",
            "emittedTokens": len(state.draws),
            "processedSeqLen": state.processed_tokens,
            "replayedTokens": 0,
            "recoveryMode": "text_only",
            "reason": reason,
            "message": message,
        }
    )


def _ended(state: SessionState, completion: ApiObject) -> ApiObject:
    """Return WebLLM's ResumeResult of a reply that was ended, with all of it beside that."""
    choice: Any = completion.choices[0]
    message, is_whole = choice.message, choice.finish_reason != "abort"
    n_tokens = completion.usage.completion_tokens
    return ApiObject(
        {
            "sessionId": state.session_id,
            "recoveredText": message.content or "",
            "emittedTokens": n_tokens,
            "processedSeqLen": len(state.prompt or ()) + n_tokens,
            "replayedTokens": len(state.draws),
            "recoveryMode": "token_replay",
            "reason": "generation finished" if is_whole else "generation aborted",
            "message": message.to_dict(),
            "completion": completion.to_dict(),
        }
    )
