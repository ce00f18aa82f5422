"""Chat completion responses: OpenAI's objects, with WebLLM's `usage.extra`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from py_engine.api.objects import ApiObject

if TYPE_CHECKING:
    from py_engine.generation.statistics import Statistics


def usage(statistics: Statistics, *, prompt_tokens: int, e2e_latency_s: float) -> dict[str, Any]:
    """Return `usage`: counts of all tokens, and in `extra` speeds per second and times.

    The prompt counts once, as OpenAI counts it, however many choices it was prefilled for.
    """
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": statistics.completion_tokens,
        "total_tokens": prompt_tokens + statistics.completion_tokens,
        "extra": {
            "e2e_latency_s": e2e_latency_s,
            "prefill_tokens_per_s": statistics.prefill_tokens_per_s,
            "decode_tokens_per_s": statistics.decode_tokens_per_s,
            "time_to_first_token_s": statistics.prefill_s,
            "time_per_output_token_s": statistics.time_per_output_token_s,
        },
    }


class ResponseMaker:
    """Makes the response to one request, or the chunks of its stream: one id, one `created`.

    With `include_usage` every chunk has `usage`, null in all but the last.
    """

    def __init__(self, model: str, *, include_usage: bool = False) -> None:
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self._tail: dict[str, Any] = {"usage": None} if include_usage else {}
        self._has_begun = False

    def completion(self, choices: Sequence[tuple[str, str]], usage: dict[str, Any]) -> ApiObject:
        """Return a `chat.completion` of (text, finish_reason) for each choice."""
        return ApiObject(
            {
                **self._head,
                "object": "chat.completion",
                "choices": [
                    {
                        "index": index,
                        "finish_reason": finish_reason,
                        "logprobs": None,
                        "message": {"role": "assistant", "content": text, "refusal": None},
                    }
                    for index, (text, finish_reason) in enumerate(choices)
                ],
                "usage": usage,
            }
        )

    def text_chunk(self, text: str) -> ApiObject:
        """Return a chunk with more text; the first one says whose it is."""
        delta = {"content": text} if self._has_begun else {"role": "assistant", "content": text}
        self._has_begun = True
        return self._chunk([_choice(delta, None)])

    def final_chunks(self, finish_reason: str, usage: dict[str, Any] | None) -> list[ApiObject]:
        """Return the chunks that end a stream: the reason, and `usage` where it is given."""
        chunks = [] if self._has_begun else [self.text_chunk("")]
        chunks.append(self._chunk([_choice({}, finish_reason)]))
        if usage is not None:
            chunks.append(self._chunk([], usage=usage))
        return chunks

    def _chunk(self, choices: list[dict[str, Any]], **fields: Any) -> ApiObject:
        head = {**self._head, "object": "chat.completion.chunk", "choices": choices}
        return ApiObject({**head, **self._tail, **fields})


def _choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
