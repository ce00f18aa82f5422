"""WebLLM's worker messages: one table of kinds for both ends, and the errors that cross.

A request is `{kind, uuid, content}`; a reply is `{kind: "return" | "throw", uuid, content}`.
Kinds and fields are those of npm `@mlc-ai/web-llm` 0.2.86 (`message.d.ts`). What we add is fields
that an older peer ignores: `error` in a "throw", beside the string `content`.

Runs on CPython, Pyodide and MicroPython. Messages are plain dicts of JSON values.
"""

import py_engine.errors as errors
from py_engine.api.objects import plain

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
    "chatCompletionNonStreaming": ("request", "modelId?", "chatOpts?"),
    "chatCompletionStreamInit": (
        "request",
        "selectedModelId?",
        "streamId?",
        "modelId?",
        "chatOpts?",
    ),
    "completionNonStreaming": ("request", "modelId?", "chatOpts?"),
    "completionStreamInit": ("request", "selectedModelId?", "streamId?", "modelId?", "chatOpts?"),
    "completionStreamNextChunk": ("streamId?", "selectedModelId?"),
    "completionStreamReturn": ("streamId",),
    "embedding": ("request", "modelId?", "chatOpts?"),
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
            f"{kind}: content is {_shown(content)}, but must be an object with {', '.join(fields)}."
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


def jsonable(value: "Any", path: str) -> "Any":
    """Return a plain copy of `value` that JSON can carry; `path` names it in errors.

    ApiObjects become dicts, tuples lists, integer keys strings. Checked here because a MicroPython
    script cannot catch what JavaScript throws.
    Errors: ConfigValueError naming the first part that JSON cannot carry.
    """
    value = plain(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise errors.ConfigValueError(f"{path} is {value}, but must be a finite number.")
        return value
    if isinstance(value, list):
        return [jsonable(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {_key(key, path): jsonable(item, f"{path}.{key}") for key, item in value.items()}
    raise errors.ConfigValueError(
        f"{path} is of type {type(value).__name__}, which a worker message cannot carry; "
        "use None, booleans, numbers, strings, lists and dicts."
    )


def _key(key: "Any", path: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise errors.ConfigValueError(f"{path} has the key {_shown(key)}, but keys must be strings.")


def _details_from_text(text: str) -> "dict[str, Any]":
    """Split JavaScript's `Name: message`, all that WebLLM's own handler sends."""
    name, separator, message = text.partition(": ")
    if separator and name.replace("_", "a").isalpha():
        return {"name": name, "message": message}
    return {"name": "Error", "message": text}


def _shown(value: "Any") -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
