"""WebLLM's worker messages: one table of kinds for both ends, and the errors that cross.

A request is `{kind, uuid, content}`; a reply is `{kind: "return" | "throw", uuid, content}`.
Kinds and fields are those of npm `@mlc-ai/web-llm` 0.2.86 (`message.d.ts`). What we add are the
kinds "countTokens", "modelCache" and "registerLocalFiles", and a field that an older peer ignores:
`error` in a "throw", beside the string `content`.

Runs on CPython, Pyodide and MicroPython. Messages are plain dicts of JSON values; only the
`attachments` are not: of "registerLocalFiles" pairs of a path and a File or handle, of a chat
request pairs of a place, "message.part", and the image object that stands there.
"""

import py_engine.errors as errors
from py_engine.json_values import jsonable, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RETURN = "return"
THROW = "throw"
INIT_PROGRESS = "initProgressCallback"
HEARTBEAT = "heartbeat"

# Kinds of request, each with the fields of its content; "?" marks those that may be absent.
# None: the content is null or, where NO_REPLY says so, a value of its own.
KINDS: "dict[str, tuple[str, ...] | None]" = {
    "reload": ("modelId", "chatOpts?"),
    "unload": None,
    "interruptGenerate": None,
    "resetChat": ("keepStats?", "modelId?"),
    "getMessage": ("modelId?",),
    "runtimeStatsText": ("modelId?",),
    "forwardTokensAndSample": ("inputIds", "isPrefill", "modelId?"),
    "getMaxStorageBufferBindingSize": None,
    "getGPUVendor": None,
    "getGPUMemory": None,
    "chatCompletionNonStreaming": ("request", "streamId?", "modelId?", "chatOpts?"),
    "chatCompletionStreamInit": (
        "request",
        "selectedModelId?",
        "streamId?",
        "modelId?",
        "chatOpts?",
    ),
    "completionNonStreaming": ("request", "streamId?", "modelId?", "chatOpts?"),
    "completionStreamInit": ("request", "selectedModelId?", "streamId?", "modelId?", "chatOpts?"),
    "completionStreamNextChunk": ("streamId?", "selectedModelId?"),
    "completionStreamReturn": ("streamId",),
    "embedding": ("request", "streamId?", "modelId?", "chatOpts?"),
    "countTokens": ("messages", "modelId?", "tools?"),
    "registerLocalFiles": ("name",),
    "modelCache": ("action", "modelId?", "appConfig?"),
    "listResumableSessions": None,
    "resumeChatCompletion": ("sessionId", "options?"),
    "resumeChatCompletionStreamInit": ("sessionId", "options?", "streamId"),
    "deleteResumableSession": ("sessionId",),
    "setLogLevel": None,
    "setAppConfig": None,
    "customRequest": ("requestName", "requestMessage?"),
    "keepAlive": None,
}

# Kinds that are never answered.
NO_REPLY = ("setLogLevel", "setAppConfig", "customRequest")


def check_content(kind: str, content: "Any") -> None:
    """Raise MessageFormatError unless `content` has the fields that `kind` requires."""
    fields = KINDS[kind]
    if fields is None:
        return
    if not isinstance(content, dict):
        raise errors.MessageFormatError(
            f"{kind}: content is {shown(content)}, but must be an object with {', '.join(fields)}."
        )
    for field in fields:
        if not field.endswith("?") and content.get(field) is None:
            raise errors.MessageFormatError(f"{kind}: content.{field} is missing.")


def returned(uuid: str, content: "Any") -> "dict[str, Any]":
    """Return the reply that resolves request `uuid` with `content`."""
    return {"kind": RETURN, "uuid": uuid, "content": content}


def stream_end(uuid: str) -> "dict[str, Any]":
    """Return the reply that ends a stream: without content, which WebLLM reads as `undefined`."""
    return {"kind": RETURN, "uuid": uuid}


def thrown(uuid: str, error: BaseException, traceback_text: str = "") -> "dict[str, Any]":
    """Return the reply that rejects request `uuid` with `error`.

    `content` is the string that WebLLM's client rejects with. `error` adds name, message,
    traceback and the error's own attributes (`fields`), as far as JSON can carry them.
    """
    name = getattr(error, "name", "") if isinstance(error, errors.RemoteError) else ""
    name = name or type(error).__name__
    message = str(error)
    fields = {}
    for key, value in getattr(error, "__dict__", {}).items():
        if not key.startswith("_") and key not in ("name", "remote_traceback"):
            try:
                fields[key] = jsonable(value, key)
            except errors.ConfigValueError:
                fields[key] = str(value)
    return {
        "kind": THROW,
        "uuid": uuid,
        "content": f"{name}: {message}",
        "error": {
            "name": name,
            "message": message,
            "traceback": traceback_text,
            "fields": fields,
        },
    }


def error_from(message: "dict[str, Any]") -> errors.MLCError:
    """Return the exception that a "throw" message stands for.

    It has the class of py_engine.errors that the message names, else RemoteError; the attributes
    in `fields`; and `remote_traceback`, the worker's traceback as text.
    """
    details = message.get("error")
    if not isinstance(details, dict):
        details = _details_from_text(str(message.get("content")))
    name = str(details.get("name") or "Error")
    text = str(details.get("message") or "")
    kind = getattr(errors, name, None)
    error: errors.MLCError
    if isinstance(kind, type) and issubclass(kind, errors.MLCError):
        error = kind(text)
    else:
        error = errors.RemoteError(f"{name}: {text}" if text else name)
        error.name = name
    fields = details.get("fields")
    for key, value in fields.items() if isinstance(fields, dict) else ():
        if not key.startswith("_"):
            setattr(error, key, value)
    error.remote_traceback = str(details.get("traceback") or "")
    return error


def _details_from_text(text: str) -> "dict[str, Any]":
    """Split JavaScript's `Name: message`, all that WebLLM's own handler sends."""
    name, separator, message = text.partition(": ")
    if separator and name.replace("_", "a").isalpha():
        return {"name": name, "message": message}
    return {"name": "Error", "message": text}
