"""The sessions of a site: each a folder with WebLLM's two files, owned by whoever has its lock."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from py_engine.errors import (
    MLCError,
    ResumableSessionActiveError,
    ResumableSessionExistsError,
    ResumableSessionNotFoundError,
    StorageError,
)
from py_engine.resumable.files import JournalFile, SessionFiles
from py_engine.resumable.journal import scan
from py_engine.resumable.state import SessionState, state_of

MANIFEST_FILE = "manifest.json"
JOURNAL_FILE = "journal.bin"

# The lock of a tab that was just closed, or reloaded, is held for a moment.
_RETRIES_S = (0.02, 0.1, 0.3, 0.6)


class SessionStore:
    """Sessions in `files`. All but `probes` and `delete` are for the holder of the lock."""

    def __init__(self, files: SessionFiles) -> None:
        self._files = files

    @asynccontextmanager
    async def held(self, session_id: str) -> AsyncIterator[None]:
        """Own a session in a `with` block.

        Errors: ResumableSessionActiveError, CrossContextLockUnavailableError.
        """
        for wait_s in (*_RETRIES_S, 0):
            async with self._files.try_hold(session_id) as is_held:
                if is_held:
                    yield
                    return
            await asyncio.sleep(wait_s)
        raise ResumableSessionActiveError(
            f"The resumable session {session_id!r} belongs to a generation that is running, here "
            "or in another tab. Wait for its end, close that tab, or choose another sessionId."
        )

    async def read(self, session_id: str) -> SessionState:
        """Return what is journaled of a session.

        Errors: ResumableSessionNotFoundError, ModelFileFormatError.
        """
        manifest = await self._files.read(session_id, MANIFEST_FILE)
        journal = await self._files.read(session_id, JOURNAL_FILE)
        if manifest is None and journal is None:
            raise ResumableSessionNotFoundError(
                f"There is no resumable session {session_id!r} in this browser. "
                "list_resumable_sessions() tells which there are."
            )
        return state_of(session_id, scan(journal or b""), _manifest(manifest))

    async def create(self, session_id: str, model_id: str, first: bytes) -> JournalFile:
        """Make a session whose journal begins with `first`, all of it or nothing.

        Errors: ResumableSessionExistsError, StorageFullError.
        """
        for name in (MANIFEST_FILE, JOURNAL_FILE):
            if await self._files.read(session_id, name) is not None:
                raise ResumableSessionExistsError(
                    f"A resumable session {session_id!r} is there already. Go on with it by "
                    f"resume_chat_completion({session_id!r}), delete it, or choose another "
                    "sessionId."
                )
        try:
            return await self._created(session_id, model_id, first)
        except StorageError:
            await self._files.delete(session_id)
            raise

    async def _created(self, session_id: str, model_id: str, first: bytes) -> JournalFile:
        now = time.time_ns() // 1_000_000
        times = {"createdAtMs": now, "updatedAtMs": now}
        manifest = {"modelId": model_id, "sessionId": session_id, **times}
        await self._files.write(session_id, MANIFEST_FILE, json.dumps(manifest).encode())
        journal = await self._files.open_journal(session_id, JOURNAL_FILE, 0)
        try:
            await journal.append(first)
        except BaseException:
            await journal.close()
            raise
        return journal

    async def reopen(self, state: SessionState) -> JournalFile:
        """Return the journal of a session, cut off after its last sound record.

        Raises ResumableSessionActiveError when it is not as in `state` any more.
        """
        journal = await self._files.read(state.session_id, JOURNAL_FILE)
        found = scan(journal or b"")
        if (found.n_bytes, len(found.records)) != (state.n_bytes, state.n_records):
            raise ResumableSessionActiveError(
                f"The resumable session {state.session_id!r} was gone on with elsewhere meanwhile. "
                "Call resume_chat_completion again."
            )
        return await self._files.open_journal(state.session_id, JOURNAL_FILE, state.n_bytes)

    async def probes(self) -> list[dict[str, Any]]:
        """Return WebLLM's ResumeProbeResult of each session, in the order of their ids."""
        session_ids = sorted(await self._files.sessions())
        found = await asyncio.gather(*map(self._probe, session_ids))
        return [probe for probe in found if probe is not None]

    async def _probe(self, session_id: str) -> dict[str, Any] | None:
        try:
            async with self.held(session_id):
                return (await self.read(session_id)).probe()
        except ResumableSessionNotFoundError:  # an empty folder, or deleted meanwhile
            return None
        except ResumableSessionActiveError:
            reason = "generation is running"
        except MLCError as error:
            reason = f"session inspection failed: {error}"
        manifest = _manifest(await self._files.read(session_id, MANIFEST_FILE))
        model_id = str(manifest.get("modelId") or "")
        return {**SessionState(session_id, model_id).probe(), "reason": reason}

    async def delete(self, session_id: str) -> None:
        """Delete a session, if there is one.

        Errors: ResumableSessionActiveError, CrossContextLockUnavailableError.
        """
        async with self.held(session_id):
            await self._files.delete(session_id)


def _manifest(data: bytes | None) -> Mapping[str, Any]:
    """Return a manifest; an empty one where it is damaged, as the journal tells all of it."""
    try:
        manifest = json.loads(data or b"{}")
    except ValueError:
        return {}
    return manifest if isinstance(manifest, dict) else {}
