"""An engine with the answers of a test, and OpenAI's client asking it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai

MODEL = "model"
MESSAGES: Any = [{"role": "user", "content": "Hi"}]


class CannedEngine:
    """Gives the answers of a test: `answer(request)` returns a response, chunks, or raises.

    It records requests, chunks generated, and streams that ended or were closed.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.model_id: list[str] | None = [MODEL]
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.generated = self.ended = 0

    async def chat_completion(self, request: dict[str, Any]) -> Any:
        self.requests.append(request)
        answer = self.answer(request)
        if inspect.isawaitable(answer):
            answer = await answer
        return self._stream(answer) if isinstance(answer, list) else answer

    completion = embedding = chat_completion

    async def _stream(self, chunks: list[Any]) -> AsyncIterator[Any]:
        try:
            for chunk in chunks:
                self.generated += 1
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.ended += 1


def chunk(index: int = 0, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return {**head, "choices": [choice]}


def text_chunks(*words: str) -> list[Any]:
    return [*(chunk(role="assistant", content=word) for word in words), chunk(finish_reason="stop")]


def response(*messages: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "finish_reason": finish_reason,
            "logprobs": None,
            "message": {"role": "assistant", "content": None, "refusal": None, **message},
        }
        for index, message in enumerate(messages)
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "extra": {"x_s": 0.5}}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL}
    return {**head, "choices": choices, "usage": usage}


def raising(error: Exception) -> Callable[[dict[str, Any]], Any]:
    def answer(_request: dict[str, Any]) -> Any:
        raise error

    return answer


def ask(client: openai.AsyncOpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, **fields)
