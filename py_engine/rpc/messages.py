"""WebLLM's worker messages: one table of kinds for both ends, and the errors that cross.

A request is `{kind, uuid, content}`; a reply is `{kind: "return" | "throw", uuid, content}`.
Kinds and fields are those of npm `@mlc-ai/web-llm` 0.2.86 (`message.d.ts`). What we add are the
kinds "countTokens", "getGPUMemory", "modelCache", "profileKernels" and "registerLocalFiles", and
fields that an older peer ignores: `error` in a "throw", beside the string `content`; `appConfig`
beside `modelId` and `chatOpts`; and in "keepAlive" the uuids that are `pending`, of which the
"heartbeat" tells those that are `lost`, because the browser has started the worker anew.

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

# What a client expects to be loaded, sent along because a worker may be a new one.
_EXPECTED = ("modelId?", "chatOpts?", "appConfig?")

_REQUEST = ("request", "streamId?") + _EXPECTED  # noqa: RUF005  MicroPython
_STREAM = _REQUEST + ("selectedModelId?",)  # noqa: RUF005  MicroPython
_RESUME = ("sessionId", "options?") + _EXPECTED  # noqa: RUF005  MicroPython

# Kinds of request, each with the fields of its content; "?" marks those that may be absent.
# None: the content is null or, where NO_REPLY says so, a value of its own.
KINDS: "dict[str, tuple[str, ...] | None]" = {
    "reload": ("modelId", "chatOpts?", "appConfig?"),
    "unload": None,
    "interruptGenerate": None,
    "resetChat": ("keepStats?", "modelId?"),
    "getMessage": ("modelId?",),
    "runtimeStatsText": ("modelId?",),
    "forwardTokensAndSample": ("inputIds", "isPrefill", "modelId?"),
    "getMaxStorageBufferBindingSize": None,
    "getGPUVendor": None,
    "getGPUMemory": None,
    "profileKernels": ("modelId?", "nTokens?"),
    "chatCompletionNonStreaming": _REQUEST,
    "chatCompletionStreamInit": _STREAM,
    "completionNonStreaming": _REQUEST,
    "completionStreamInit": _STREAM,
    "completionStreamNextChunk": ("streamId?", "selectedModelId?"),
    "completionStreamReturn": ("streamId",),
    "embedding": _REQUEST,
    "countTokens": ("messages", "modelId?", "tools?", "expected?"),
    "registerLocalFiles": ("name",),
    "modelCache": ("action", "modelId?", "appConfig?"),
    "listResumableSessions": None,
    "resumeChatCompletion": _RESUME,
    "resumeChatCompletionStreamInit": _RESUME + ("streamId",),  # noqa: RUF005  MicroPython
    "deleteResumableSession": ("sessionId",),
    "setLogLevel": None,
    "setAppConfig": None,
    "customRequest": ("requestName", "requestMessage?"),
    "keepAlive": None,
}

# Kinds that are never answered.
NO_REPLY = ("setLogLevel", "setAppConfig", "customRequest")

# Kinds that a new worker cannot answer as the one before would have: they go on with its state.
NOT_REPEATABLE = ("completionStreamNextChunk", "forwardTokensAndSample")


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


def progress(report: "Any") -> "dict[str, Any]":
    """Return the message that tells how a load goes; `report` is an InitProgressReport."""
    return {"kind": INIT_PROGRESS, "uuid": "", "content": report.to_dict()}


def heartbeat(uuid: "Any", lost: "list[str] | None") -> "dict[str, Any]":
    """Return the answer to "keepAlive"; `lost` are requests that this worker never got."""
    message = {"kind": HEARTBEAT, "uuid": uuid}
    if lost is not None:
        message["lost"] = lost
    return message


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


def unknown_kind(failure: str) -> str:
    """Return the kind that a worker's failure is about because WebLLM's handler does not know it.

    It throws then, and does not answer. Returns "" for any other failure.
    """
    return failure.partition("UnknownMessageKindError: Unknown message kind, msg: [")[2].partition(
        "]"
    )[0]
