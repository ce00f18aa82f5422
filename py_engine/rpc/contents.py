"""What the worker reads out of a request's content."""

from __future__ import annotations

import re
from typing import Any

from py_engine.errors import MessageFormatError
from py_engine.json_values import shown
from py_engine.rpc.messages import KINDS

Message = dict[str, Any]


def content_of(message: Message) -> Any:
    """Return a message's content, with its attachments where it has some."""
    content = message.get("content")
    if "attachments" in message and isinstance(content, dict):
        return {**content, "attachments": message["attachments"]}
    return content


def stream_key(content: dict[str, Any]) -> str:
    """Return the key that the client gave a stream. Raises MessageFormatError."""
    key = content.get("streamId") or content.get("selectedModelId")
    if not isinstance(key, str):
        raise MessageFormatError(f"content.streamId is {shown(key)}, but must be a string.")
    return key


def pending_of(content: Any) -> list[str] | None:
    """Return the uuids that a "keepAlive" tells to be unanswered; None for WebLLM's, without."""
    pending = content.get("pending") if isinstance(content, dict) else None
    return [str(uuid) for uuid in pending] if isinstance(pending, list) else None


def resume_option(content: dict[str, Any], name: str) -> bool:
    """Return one of WebLLM's ResumeChatCompletionOptions, false by default.

    Raises MessageFormatError for options that are no object.
    """
    options = content.get("options") or {}
    if not isinstance(options, dict):
        raise MessageFormatError(f"content.options is {shown(options)}, but must be an object.")
    return options.get(name) is True


def arguments_of(kind: str, content: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields of `content` that are set, under the names that the engine gives them."""
    names = [field.rstrip("?") for field in KINDS[kind] or ()]
    return {method_of(name): content[name] for name in names if content and name in content}


def method_of(name: str) -> str:
    """Turn WebLLM's camelCase into the engine's names: getGPUVendor -> get_gpu_vendor."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
