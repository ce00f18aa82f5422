"""OpenAI's responses, at once and in chunks, with WebLLM's `usage.extra`."""

from __future__ import annotations

import codecs
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from py_engine.api.objects import ApiObject

Json = dict[str, Any]


@dataclass(frozen=True)
class ReplyEvent:
    """Something new of the choice `index`: a delta of it, or its end.

    `delta` is OpenAI's for chats, {"text": ...} for text completions. `logprobs` are those of the
    tokens that begin in it, as OpenAI has them for chats.
    """

    index: int
    delta: Json = field(default_factory=dict)
    logprobs: Sequence[Json] = ()
    finish_reason: str | None = None


@dataclass
class _Reply:
    """A choice put together from its deltas."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: list[Json] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, event: ReplyEvent) -> None:
        for name, value in event.delta.items():
            if name == "tool_calls":
                for part in value:
                    self._add_call(part)
            else:
                self.texts.setdefault(name, []).append(value)
        self.logprobs += event.logprobs
        self.finish_reason = event.finish_reason

    def text(self, name: str) -> str | None:
        return "".join(self.texts[name]) if name in self.texts else None

    def _add_call(self, part: Json) -> None:
        if part["index"] == len(self.calls):
            function = {"name": part["function"]["name"], "arguments": ""}
            self.calls.append({"id": part["id"], "type": "function", "function": function})
        self.calls[part["index"]]["function"]["arguments"] += part["function"].get("arguments", "")


class ResponseMaker(ABC):
    """Makes the response to one request, or the chunks of its stream: one id, one `created`.

    `include_usage`: every chunk has `usage`, null in all but the last. `has_logprobs`: they were
    asked for.
    """

    _id_prefix: str
    _object: str
    _chunk_object: str

    def __init__(
        self, model: str, *, include_usage: bool = False, has_logprobs: bool = False
    ) -> None:
        self._head: Json = {
            "id": f"{self._id_prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self._tail: Json = {"usage": None} if include_usage else {}
        self._has_logprobs = has_logprobs
        self._replies: dict[int, _Reply] = {}

    def add(self, event: ReplyEvent) -> None:
        """Add an event to the response."""
        self._replies.setdefault(event.index, _Reply()).add(event)

    @abstractmethod
    def chunks(self, event: ReplyEvent) -> list[ApiObject]:
        """Return the chunks that tell of an event."""

    @abstractmethod
    def _choices(self) -> list[Json]:
        """Return the choices of what was added."""

    def response(self, usage: Json) -> ApiObject:
        """Return the response of all that was added."""
        return ApiObject(
            {**self._head, "object": self._object, "choices": self._choices(), "usage": usage}
        )

    def usage_chunk(self, usage: Json) -> ApiObject:
        """Return the last chunk of a stream that includes usage."""
        return self._chunk([], usage=usage)

    def _chunk(self, choices: list[Json], **fields: Any) -> ApiObject:
        head = {**self._head, "object": self._chunk_object, "choices": choices}
        return ApiObject({**head, **self._tail, **fields})


class ChatResponseMaker(ResponseMaker):
    """`chat.completion` and `chat.completion.chunk`."""

    _id_prefix = "chatcmpl"
    _object = "chat.completion"
    _chunk_object = "chat.completion.chunk"

    def __init__(
        self, model: str, *, include_usage: bool = False, has_logprobs: bool = False
    ) -> None:
        super().__init__(model, include_usage=include_usage, has_logprobs=has_logprobs)
        self._begun: set[int] = set()

    def chunks(self, event: ReplyEvent) -> list[ApiObject]:
        chunks = []
        if event.index not in self._begun:
            self._begun.add(event.index)
            content = None if event.delta else ""
            first = {"role": "assistant", "content": content, **event.delta}
            chunks.append(self._chunk([self._choice(event, first)]))
        elif event.delta or event.logprobs:
            chunks.append(self._chunk([self._choice(event, event.delta)]))
        if event.finish_reason is not None:
            chunks.append(self._chunk([self._choice(event, {}, event.finish_reason)]))
        return chunks

    def _choice(self, event: ReplyEvent, delta: Json, finish_reason: str | None = None) -> Json:
        is_end = finish_reason is not None
        return {
            "index": event.index,
            "delta": delta,
            "finish_reason": finish_reason,
            "logprobs": None if is_end else self._logprobs(event.logprobs),
        }

    def _choices(self) -> list[Json]:
        return [
            {
                "index": index,
                "finish_reason": reply.finish_reason,
                "logprobs": self._logprobs(reply.logprobs),
                "message": _chat_message(reply),
            }
            for index, reply in sorted(self._replies.items())
        ]

    def _logprobs(self, entries: Sequence[Json]) -> Json | None:
        return {"content": list(entries), "refusal": None} if self._has_logprobs else None


def _chat_message(reply: _Reply) -> Json:
    made: Json = {
        "role": "assistant",
        "content": reply.text("content") or (None if reply.calls else ""),
        "refusal": None,
    }
    reasoning = reply.text("reasoning_content")
    if reasoning is not None:
        made["reasoning_content"] = reasoning
    if reply.calls:
        made["tool_calls"] = reply.calls
    return made


class CompletionResponseMaker(ResponseMaker):
    """`text_completion`, which is what its chunks are called too."""

    _id_prefix = "cmpl"
    _object = _chunk_object = "text_completion"

    def __init__(
        self, model: str, *, include_usage: bool = False, has_logprobs: bool = False
    ) -> None:
        super().__init__(model, include_usage=include_usage, has_logprobs=has_logprobs)
        self._offsets: dict[int, _Offsets] = {}

    def chunks(self, event: ReplyEvent) -> list[ApiObject]:
        return [self._chunk([self._choice(event.index, event, event.delta.get("text", ""))])]

    def _choices(self) -> list[Json]:
        return [
            self._choice(index, reply, reply.text("text") or "")
            for index, reply in sorted(self._replies.items())
        ]

    def _choice(self, index: int, said: ReplyEvent | _Reply, text: str) -> Json:
        offsets = self._offsets.setdefault(index, _Offsets())
        return {
            "index": index,
            "text": text,
            "finish_reason": said.finish_reason,
            "logprobs": _legacy_logprobs(said.logprobs, offsets) if self._has_logprobs else None,
        }


class _Offsets:
    """Where each token of a text begins, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = 0

    def next(self, token: bytes) -> int:
        """Return where the next token begins; one that begins inside of a character, at that."""
        begin = self._end
        self._end += len(self._decoder.decode(token))
        return begin


def _legacy_logprobs(entries: Sequence[Json], offsets: _Offsets) -> Json:
    """Return OpenAI's parallel lists for text completions, with WebLLM's `content` beside them."""
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [_by_token(entry) for entry in entries],
        "text_offset": [offsets.next(bytes(entry["bytes"])) for entry in entries],
        "content": list(entries),
    }


def _by_token(entry: Json) -> dict[str, float]:
    """Return the log-probabilities of a token's rivals and of itself, as OpenAI does.

    Of those that read the same, as parts of a character do, the likeliest counts.
    """
    found: dict[str, float] = {}
    for each in (*entry["top_logprobs"], entry):
        found.setdefault(each["token"], each["logprob"])
    return found
