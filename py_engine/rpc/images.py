"""Image objects of a chat request, which JSON cannot carry: they travel as attachments.

Runs on CPython, Pyodide and MicroPython.
"""

from py_engine.errors import MessageFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def without_images(request: "Any") -> "tuple[Any, list[tuple[str, Any]]]":
    """Return a plain request without its image objects, and these with their places."""
    attachments: list[tuple[str, Any]] = []
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list):
        return request, attachments
    taken = []
    for index, message in enumerate(messages):
        parts = message.get("content") if isinstance(message, dict) else None
        if isinstance(parts, list):
            kept = [_kept(part, f"{index}.{at}", attachments) for at, part in enumerate(parts)]
            message = _changed(message, "content", kept)
        taken.append(message)
    return _changed(request, "messages", taken), attachments


def _kept(part: "Any", place: str, attachments: "list[tuple[str, Any]]") -> "Any":
    fields = part.get("image_url") if isinstance(part, dict) else None
    if not isinstance(fields, dict):
        return part
    url = fields.get("url")
    if url is None or isinstance(url, (str, bool, int, float, dict, list)):
        return part
    attachments.append((place, url))
    return _changed(part, "image_url", _changed(fields, "url", None))


def _changed(fields: "dict[str, Any]", name: str, value: "Any") -> "dict[str, Any]":
    copy = dict(fields)
    copy[name] = value
    return copy


def put_images(request: "dict[str, Any]", attachments: "list[tuple[str, Any]]") -> None:
    """Put image objects back where `without_images` took them from. Raises MessageFormatError."""
    for place, item in attachments:
        try:
            message, part = place.split(".")
            request["messages"][int(message)]["content"][int(part)]["image_url"]["url"] = item
        except (KeyError, IndexError, ValueError, TypeError):
            raise MessageFormatError(
                f"an attachment is for {place!r}, where the request has no image part."
            ) from None
