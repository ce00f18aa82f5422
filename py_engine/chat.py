"""Chat completions on a loaded model: at once, or as a stream of chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, ClassVar

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.objects import ApiObject
from py_engine.api.responses import ResponseMaker, usage
from py_engine.generation import Generation, Statistics
from py_engine.loaded_model import LoadedModel


class ChatJob:
    """One checked request with its prompt, for one model.

    `began` is the time (perf_counter, seconds) from which the request's latency counts.
    """

    def __init__(
        self, model: LoadedModel, model_id: str, request: ChatCompletionRequest, began: float
    ) -> None:
        """Render and check the prompt. Raises ChatTemplateError, UnsupportedRoleError and
        ContextWindowSizeExceededError.
        """
        self._model = model
        self._request = request
        self._prompt: Sequence[int] = model.renderer.render(request.messages)
        self._first = model.generation(self._prompt, request)
        self._maker = ResponseMaker(model_id, include_usage=request.include_usage)
        self._began = began

    async def complete(self) -> ApiObject:
        """Return the response with all choices; an interruption leaves out those to come."""
        total, choices = Statistics(), []
        async with self._model.turn():
            for index in range(self._request.n):
                generation = self._generation(index)
                async with aclosing(self._model.run(generation)) as pieces:
                    async for _ in pieces:
                        pass
                total.add(generation.statistics)
                choices.append((generation.text, str(generation.finish_reason)))
                if generation.finish_reason == "abort":
                    break
        return self._maker.completion(choices, self._usage(total))

    async def chunks(self) -> AsyncGenerator[ApiObject, None]:
        """Yield the response's chunks; the model is free again before the last ones."""
        generation, maker = self._first, self._maker
        async with self._model.turn(), aclosing(self._model.run(generation)) as pieces:
            async for piece in pieces:
                yield maker.text_chunk(piece.text)
        total = self._usage(generation.statistics) if self._request.include_usage else None
        for chunk in maker.final_chunks(str(generation.finish_reason), total):
            yield chunk

    def _generation(self, index: int) -> Generation:
        if index == 0:
            return self._first
        return self._model.generation(self._prompt, self._request, index)

    def _usage(self, statistics: Statistics) -> dict[str, Any]:
        latency = time.perf_counter() - self._began
        return usage(statistics, prompt_tokens=len(self._prompt), e2e_latency_s=latency)


class ChatCompletionStream:
    """An async iterator of `chat.completion.chunk` objects.

    Its request takes its turn at the model with the first chunk, and gives it up with the last, or
    when the stream is closed (`aclose`, or the end of an `async with` block), cancelled or dropped.
    """

    _closing: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(self, job: ChatJob) -> None:
        self._chunks = job.chunks()
        self._is_open = False

    def __aiter__(self) -> ChatCompletionStream:
        return self

    async def __anext__(self) -> ApiObject:
        self._is_open = True
        try:
            return await anext(self._chunks)
        except BaseException:
            self._is_open = False
            raise

    async def aclose(self) -> None:
        """End the reply and free the model; returns when that is done. May be called twice."""
        self._is_open = False
        await self._chunks.aclose()

    async def __aenter__(self) -> ChatCompletionStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Pyodide's event loop does not close async generators that nobody refers to any more.
        if self._is_open:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # the interpreter or the loop has ended
                return
            task = loop.create_task(self._chunks.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
