"""The reply to a resumable request: it is journaled while it runs, and can begin with a replay."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.chat_prompt import ChatPrompt
from py_engine.errors import StorageError, UnsupportedFieldsError
from py_engine.generation import Generation, GenerationParams, Piece, Seat
from py_engine.loaded_model import LoadedModel
from py_engine.replies import Replies, sampling_params
from py_engine.resumable.recorder import JournalRecorder
from py_engine.resumable.state import OWN_CONFIG, SessionState
from py_engine.resumable.store import SessionStore

logger = logging.getLogger(__name__)


class RecordedReplies(Replies):
    """Journals the one reply to a request, from its beginning or from where `state` has it.

    A reply that nothing but its request decides (a seed, or temperature 0) goes on to the last bit
    as it would have: its tokens are replayed by the steps that drew them. Others are prefilled.
    """

    def __init__(
        self,
        model: LoadedModel,
        model_id: str,
        request: ChatCompletionRequest,
        prompt: ChatPrompt,
        began: float,
        recorder: JournalRecorder,
        state: SessionState | None,
    ) -> None:
        super().__init__(model, request, began)
        self._model_id = model_id
        self._prompt = prompt
        self._recorder = recorder
        self._state = state
        if state is not None and state.own is not None:
            self._seed = state.own.integer("seed", maximum=2**64)

    def _params(
        self, index: int, kept_special_ids: frozenset[int], grammar_after: str
    ) -> GenerationParams:
        params = super()._params(index, kept_special_ids, grammar_after)
        return replace(
            params,
            is_reproducible=params.is_reproducible or not params.sampling.temperature,
            replayed=() if self._state is None else tuple(self._state.draws),
            recorder=self._recorder,
        )

    async def run(
        self, generation: Generation, seat: Seat, *, is_first_of_prompt: bool = True
    ) -> AsyncGenerator[Piece, None]:
        """Run the reply and journal it.

        Errors: also ResumableSessionExistsError, ResumableSessionActiveError; StorageError's
        classes where the request has `strictPersistence`.
        """
        recorder = self._recorder
        try:
            await self._begin()
            replies = super().run(generation, seat, is_first_of_prompt=is_first_of_prompt)
            async with aclosing(replies) as pieces:
                async for piece in pieces:
                    if generation.is_replaying:
                        recorder.see(piece.text)
                    yield piece
            await recorder.finish(str(generation.finish_reason), generation.text)
        except Exception as error:
            await recorder.fail(error)
            raise
        finally:
            await recorder.close()

    async def _begin(self) -> None:
        prefix = self._prompt.forced_prefix
        if self._state is not None:
            await self._recorder.resume(self._state, prefix)
            return
        fields, config = self.fields, self.model.config
        sampling = asdict(sampling_params(config, fields, self._seed))
        own: dict[str, Any] = {"seed": sampling.pop("seed"), "modelConfig": config.data}
        generation_config = {
            **sampling,
            "max_tokens": fields.max_tokens,
            "stop": fields.stop,
            "ignore_eos": fields.ignore_eos,
        }
        await self._recorder.begin(
            self._model_id,
            self._prompt.token_ids,
            {"generationConfig": generation_config, OWN_CONFIG: own},
            prefix,
        )


async def recorded_replies(
    model: LoadedModel,
    model_id: str,
    request: ChatCompletionRequest,
    prompt: ChatPrompt,
    began: float,
    state: SessionState | None = None,
) -> Replies:
    """Return the replies to a request that may be `resumable`; `state` is what to go on with.

    Errors: UnsupportedFieldsError for images and for a model with a logit processor; StorageError's
    classes where the request has `strictPersistence`.
    """
    resumable = request.resumable
    if resumable is None:
        return Replies(model, request, began)
    if prompt.images or model.logit_processor is not None:
        what = "the messages have images" if prompt.images else "the model has a logit processor"
        raise UnsupportedFieldsError(
            f"request: resumable is enabled, but {what}, which cannot be kept. Leave one of them "
            "out."
        )
    try:
        store = SessionStore(await model.host.open_sessions())
    except StorageError as error:
        if resumable.is_strict:
            raise
        logger.warning("session %r is not recorded: %s", resumable.session_id, error)
        return Replies(model, request, began)
    recorder = JournalRecorder(store, resumable, prompt.parser(stream=True))
    return RecordedReplies(model, model_id, request, prompt, began, recorder, state)
