"""Checks of the `messages` of a chat request, and their plain form for templates."""

from __future__ import annotations

from typing import Any

from py_engine.errors import (
    ConfigValueError,
    ContentTypeError,
    MessageOrderError,
    SystemMessageOrderError,
    UnsupportedFieldsError,
    UnsupportedRoleError,
)
from py_engine.json_fields import shown

ROLES = ("system", "developer", "user", "assistant", "tool")

# Fields that a chat template may read.
_KEPT_FIELDS = ("name", "tool_call_id", "reasoning_content", "reasoning", "thinking")
_UNSUPPORTED_FIELDS = ("tool_calls", "function_call", "audio")


def checked_messages(messages: Any) -> list[dict[str, Any]]:
    """Return the messages with text as content and without empty and unknown fields.

    `developer` is OpenAI's newer name of `system` and becomes that; a list of text parts becomes
    one text with a line for each. Errors: the classes of RequestError that begin with "messages".
    """
    if not isinstance(messages, list) or not messages:
        raise ConfigValueError(
            f"messages is {shown(messages)}, but must be a list with at least one message, such as "
            '{"role": "user", "content": "Hello"}.'
        )
    checked = [_checked_message(message, index) for index, message in enumerate(messages)]
    if checked[-1]["role"] not in ("user", "tool"):
        raise MessageOrderError(
            f"messages[{len(checked) - 1}] is the last one and has role "
            f"'{checked[-1]['role']}', but the last message must be the user's or a tool's."
        )
    return checked


def _checked_message(message: Any, index: int) -> dict[str, Any]:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise ConfigValueError(f"{where} is {shown(message)}, but must be an object.")
    role = message.get("role")
    if role not in ROLES:
        raise UnsupportedRoleError(
            f"{where}.role is {shown(role)}, but must be one of {', '.join(ROLES)}."
        )
    role = "system" if role == "developer" else role
    if role == "system" and index > 0:
        raise SystemMessageOrderError(
            f"{where} has role 'system', but a system message must be the first one."
        )
    given = [name for name in _UNSUPPORTED_FIELDS if message.get(name)]
    if given:
        raise UnsupportedFieldsError(
            f"{where} has {', '.join(given)}, which are not supported. Leave them out, or write "
            "the calls into the content."
        )
    kept = {name: message[name] for name in _KEPT_FIELDS if message.get(name) is not None}
    return {"role": role, "content": _checked_content(message.get("content"), where), **kept}


def _checked_content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ContentTypeError(
            f"{where}.content is {shown(content)}, but must be a string or a list of text parts."
        )
    return "\n".join(_part_text(part, f"{where}.content[{i}]") for i, part in enumerate(content))


def _part_text(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        raise ContentTypeError(
            f"{where} is {shown(part)}, but this model takes text only: "
            '{"type": "text", "text": "..."}.'
        )
    if not isinstance(part.get("text"), str):
        raise ContentTypeError(f"{where}.text is {shown(part.get('text'))}, but must be a string.")
    return str(part["text"])
