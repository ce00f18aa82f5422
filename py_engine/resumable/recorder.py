"""Writes the journal of one running generation."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from py_engine.api.resumable import Resumable
from py_engine.errors import StorageError
from py_engine.models.base import Draw
from py_engine.output import MessageParser
from py_engine.resumable.files import JournalFile
from py_engine.resumable.journal import Record, RecordType, encoded
from py_engine.resumable.state import SessionState
from py_engine.resumable.store import SessionStore

logger = logging.getLogger(__name__)

# With "relaxed" durability at most so many tokens, or so old ones, are not on the disk yet.
RELAXED_TOKENS, RELAXED_S = 8, 0.25

Fields = Mapping[str, Any]


class JournalRecorder:
    """Implements `generation.TokenRecorder`; owns the session from `begin` or `resume` to `close`.

    `parser` is the generation's own kind, begun as the generation's is: what is recovered without
    the model is the message, not the text it was parsed from. A failure of the storage ends the
    recording, and the generation only where the request wants that.
    """

    def __init__(self, store: SessionStore, request: Resumable, parser: MessageParser) -> None:
        self._store = store
        self._request = request
        self._parser = parser
        self._owned = AsyncExitStack()
        self._journal: JournalFile | None = None
        self._number = 0
        self._position = 0
        self._n_drawn = 0
        self._n_text = 0  # characters
        self._deltas: list[dict[str, Any]] = []
        self._waiting = b""
        self._n_waiting = 0
        self._flushed_at = time.monotonic()
        self._has_ended = False

    async def begin(
        self, model_id: str, prompt: Sequence[int], config: Fields, forced_prefix: str
    ) -> None:
        """Make the session. `config` is the generation's, in WebLLM's words and ours.

        Errors: ResumableSessionActiveError, ResumableSessionExistsError; StorageError's classes
        where the request is strict.
        """
        session_id = self._request.session_id
        self._deltas = self._parser.put(forced_prefix)
        self._position = len(prompt)
        begun = {
            "sessionId": session_id,
            "modelId": model_id,
            "createdAtMs": time.time_ns() // 1_000_000,
            "request": self._request.request,
        }
        settings = {"resumable": dict(self._request.settings)}
        first = (
            self._encoded(RecordType.SESSION_BEGIN, begun)
            + self._encoded(RecordType.PROMPT_TOKENS, {"tokenIds": list(prompt)})
            + self._encoded(RecordType.GENERATION_CONFIG, {"config": {**config, **settings}})
        )
        try:
            await self._owned.enter_async_context(self._store.held(session_id))
            self._journal = await self._store.create(session_id, model_id, first)
        except StorageError as error:
            await self._give_up(error)

    async def resume(self, state: SessionState, forced_prefix: str) -> None:
        """Go on with a session; `see` gets the text that its tokens made.

        Errors: ResumableSessionActiveError; StorageError's classes where the request is strict.
        """
        begun = self._parser.put(forced_prefix)
        self._deltas = [] if state.draws else begun
        self._position, self._n_drawn = state.processed_tokens, len(state.draws)
        self._number = state.n_records
        try:
            await self._owned.enter_async_context(self._store.held(state.session_id))
            self._journal = await self._store.reopen(state)
        except StorageError as error:
            await self._give_up(error)

    def see(self, text: str) -> None:
        """Learn text that is replayed."""
        self._n_text += len(text)
        self._parser.put(text)

    async def put(self, draw: Draw, text: str) -> None:
        """Record a token before its text is given out.

        Errors: StorageError's classes where the request is strict.
        """
        payload: dict[str, Any] = {"globalTokenPos": self._position, "tokenId": draw.token_id}
        payload |= self._text(self._parser.put(text))
        if draw.logprob is not None:
            payload["logprob"] = draw.logprob
        if draw.top:
            payload["top"] = draw.top
        self._n_text += len(text)
        self._position += 1
        self._n_drawn += 1
        self._n_waiting += 1
        self._add(RecordType.GENERATED_TOKEN, payload)
        is_due = self._n_waiting >= RELAXED_TOKENS
        if self._request.is_exact or is_due or time.monotonic() - self._flushed_at >= RELAXED_S:
            await self._flush()

    async def finish(self, reason: str, text: str) -> None:
        """Record the end of a reply of this text.

        Errors: StorageError's classes where the request is strict.
        """
        self._has_ended = True
        if reason == "abort":
            self._add(RecordType.GENERATION_ABORTED, {"reason": reason})
        else:
            end = {"finishReason": reason, "emittedTokens": self._n_drawn}
            deltas = [*self._parser.put(text[self._n_text :]), *self._parser.finish()]
            self._add(RecordType.GENERATION_FINISHED, end | self._text(deltas))
        await self._flush()

    async def fail(self, error: Exception) -> None:
        """Record that the generation failed; never raises a StorageError beside that."""
        self._has_ended = True
        payload = {"message": str(error), "name": type(error).__name__}
        self._add(RecordType.ENGINE_ERROR, payload)
        try:
            await self._flush()
        except StorageError as failure:
            logger.warning("%s", failure)

    async def close(self) -> None:
        """Give the session up; a generation that has not ended was aborted."""
        try:
            if not self._has_ended:
                await self.finish("abort", "")
        finally:
            try:
                await self._close_journal()
            finally:
                await self._owned.aclose()

    def _text(self, deltas: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return a payload's fields of what the message got."""
        deltas, self._deltas = [*self._deltas, *deltas], []
        others = [delta for delta in deltas if "content" not in delta]
        content = "".join(delta.get("content") or "" for delta in deltas)
        return {"textDelta": content, **({"deltas": others} if others else {})}

    def _add(self, kind: RecordType, payload: dict[str, Any]) -> None:
        if self._journal is not None:
            self._waiting += self._encoded(kind, payload)

    def _encoded(self, kind: RecordType, payload: dict[str, Any]) -> bytes:
        self._number += 1
        return encoded(Record(kind, self._number, time.time_ns() // 1_000_000, payload))

    async def _flush(self) -> None:
        data, self._waiting, self._n_waiting = self._waiting, b"", 0
        if self._journal is None or not data:
            return
        try:
            await self._journal.append(data)
        except StorageError as error:
            await self._give_up(error)
        self._flushed_at = time.monotonic()

    async def _give_up(self, error: StorageError) -> None:
        """Stop recording. Raises `error` where the request is strict."""
        await self._close_journal()
        if self._request.is_strict:
            self._has_ended = True
            raise error
        logger.warning(
            "resumable session %r is recorded no further: %s", self._request.session_id, error
        )

    async def _close_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            await journal.close()
