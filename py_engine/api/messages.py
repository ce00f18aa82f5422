"""Checks of the `messages` of a chat request, and their plain form for templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from py_engine.errors import (
    ConfigValueError,
    ContentTypeError,
    MessageOrderError,
    SystemMessageOrderError,
    UnsupportedDetailError,
    UnsupportedFieldsError,
    UnsupportedImageURLError,
    UnsupportedRoleError,
    UserMessageContentErrorForNonVLM,
)
from py_engine.json_values import is_too_deep, shown

ROLES = ("system", "developer", "user", "assistant", "tool")

# Fields that a chat template may read.
_KEPT_FIELDS = ("name", "reasoning_content", "reasoning", "thinking")
_UNSUPPORTED_FIELDS = {
    "function_call": "That is OpenAI's old form; give tool_calls, and the result with role 'tool'.",
    "audio": "Leave it out and give what was said as content.",
}
_DETAILS = ("auto", "low", "high")
_IMAGE_URLS = ("data:image", "http:", "https:", "blob:")
_IMAGE_PARTS = ("image_url", "input_audio", "file")


def checked_messages(messages: Any, *, takes_images: bool = False) -> list[dict[str, Any]]:
    """Return the messages with text as content and without empty and unknown fields.

    With `takes_images` a user's content that has images stays a list: of text parts, and of image
    parts {"type": "image", "image": URL or object}.

    `developer` is OpenAI's newer name of `system` and becomes that; a list of text parts becomes
    one text with a line for each; a refusal counts as content. Arguments of `tool_calls` that are
    the JSON text of an object become that object, as templates expect; other text stays. A tool's
    message must name a call of an earlier message, unless no earlier one has `tool_calls`: then,
    as with WebLLM, the call stands in some content.
    Errors: the classes of RequestError that begin with "messages".
    """
    if not isinstance(messages, list) or not messages:
        raise ConfigValueError(
            f"messages is {shown(messages)}, but must be a list with at least one message, such as "
            '{"role": "user", "content": "Hello"}.'
        )
    call_ids: set[str] = set()
    checked = [
        _checked_message(message, index, call_ids, takes_images)
        for index, message in enumerate(messages)
    ]
    if checked[-1]["role"] not in ("user", "tool"):
        raise MessageOrderError(
            f"messages[{len(checked) - 1}] is the last one and has role "
            f"'{checked[-1]['role']}', but the last message must be the user's or a tool's."
        )
    return checked


def _checked_message(
    message: Any, index: int, call_ids: set[str], takes_images: bool
) -> dict[str, Any]:
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
    for name, remedy in _UNSUPPORTED_FIELDS.items():
        if message.get(name):
            raise UnsupportedFieldsError(f"{where}.{name} is not supported. {remedy}")
    content: Any = None
    if takes_images and role == "user":
        content = _image_content(message.get("content"), f"{where}.content")
    checked: dict[str, Any] = {"role": role, "content": content or _content(message, where)}
    checked |= {name: _string(message, name, where) for name in _KEPT_FIELDS if message.get(name)}
    if role == "tool":
        checked["tool_call_id"] = _known_call_id(message, where, call_ids)
    if message.get("tool_calls"):
        checked["tool_calls"] = _tool_calls(message, where)
        call_ids.update(call["id"] for call in checked["tool_calls"])
    return checked


def _content(message: Mapping[str, Any], where: str) -> str:
    content = message.get("content")
    if message["role"] == "assistant" and content is None:
        if message.get("refusal"):
            return _string(message, "refusal", where)
        if message.get("tool_calls"):
            return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ContentTypeError(
            f"{where}.content is {shown(content)}, but must be a string or a list of text parts."
        )
    return "\n".join(_part_text(part, f"{where}.content[{i}]") for i, part in enumerate(content))


def _part_text(part: Any, where: str) -> str:
    """Return the text of a part of a content; other parts are refused as with WebLLM."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _IMAGE_PARTS:
        raise UserMessageContentErrorForNonVLM(
            f"{where} has type '{kind}', but this model takes text only: "
            '{"type": "text", "text": "..."}. Leave the part out, or describe it in words.'
        )
    if kind not in ("text", "refusal"):
        raise ContentTypeError(
            f"{where} is {shown(part)}, but this model takes text only: "
            '{"type": "text", "text": "..."}.'
        )
    return _string(part, kind, where)


def _image_content(content: Any, where: str) -> list[dict[str, Any]] | None:
    """Return a content that has images in parts; None for any other."""
    if not isinstance(content, list) or not any(map(_is_image, content)):
        return None
    return [
        {"type": "image", "image": _image(part, f"{where}[{i}]")}
        if _is_image(part)
        else {"type": "text", "text": _part_text(part, f"{where}[{i}]")}
        for i, part in enumerate(content)
    ]


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _image(part: Mapping[str, Any], where: str) -> Any:
    """Return a part's URL, or the object that is there in its place."""
    fields = part.get("image_url")
    if not isinstance(fields, dict):
        raise ContentTypeError(
            f'{where}.image_url is {shown(fields)}, but must be an object: {{"url": "data:..."}}.'
        )
    if fields.get("detail") not in (None, *_DETAILS):
        raise UnsupportedDetailError(
            f"{where}.image_url.detail is {shown(fields['detail'])}, but must be one of "
            f"{', '.join(_DETAILS)}; it changes nothing here."
        )
    url = fields.get("url")
    if url is None or (isinstance(url, str) and not url.startswith(_IMAGE_URLS)):
        raise UnsupportedImageURLError(
            f"{where}.image_url.url is {shown(url)}, but must begin with "
            f"{' or '.join(_IMAGE_URLS)}, or be an image object."
        )
    return url


def _tool_calls(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return an assistant's calls with their arguments as templates expect them."""
    calls = message["tool_calls"]
    if message["role"] != "assistant" or not isinstance(calls, list):
        raise ConfigValueError(
            f"{where}.tool_calls is {shown(calls)}, but must be a list in an assistant's message."
        )
    return [_tool_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)]


def _tool_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise ConfigValueError(
            f"{where} is {shown(call)}, but must be "
            '{"id": "...", "type": "function", "function": {"name": "...", "arguments": "{...}"}}.'
        )
    name = _string(function, "name", f"{where}.function")
    arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
    return {
        "id": _string(call, "id", where),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _arguments(arguments: Any, where: str) -> Mapping[str, Any] | str:
    if isinstance(arguments, dict):
        return arguments
    if not isinstance(arguments, str):
        raise ConfigValueError(f"{where} is {shown(arguments)}, but must be a JSON object's text.")
    if is_too_deep(arguments):
        return arguments
    try:
        value = json.loads(arguments, parse_constant=_refuse)
    except ValueError:
        return arguments  # what a model once wrote; it must be possible to send it back
    return value if isinstance(value, dict) else arguments


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


def _known_call_id(message: Mapping[str, Any], where: str, call_ids: set[str]) -> str:
    call_id = _string(message, "tool_call_id", where)
    if call_ids and call_id not in call_ids:
        raise ConfigValueError(
            f"{where}.tool_call_id is {shown(call_id)}, but the calls of the messages before it "
            f"are {', '.join(sorted(call_ids))}. Give the id of the call whose result this is."
        )
    return call_id


def _string(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ContentTypeError(f"{where}.{name} is {shown(value)}, but must be a string.")
    return value
