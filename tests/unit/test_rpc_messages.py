"""The table of message kinds, and what crosses the worker border."""

import builtins
import inspect
import json

import pytest

from py_engine import errors
from py_engine.rpc.messages import (
    KINDS,
    check_content,
    error_from,
    stream_end,
    thrown,
)

# RequestKind of npm @mlc-ai/web-llm 0.2.86, lib/message.d.ts.
WEBLLM_KINDS = """
    reload runtimeStatsText interruptGenerate unload resetChat getMaxStorageBufferBindingSize
    getGPUVendor forwardTokensAndSample chatCompletionNonStreaming completionNonStreaming embedding
    listResumableSessions resumeChatCompletion resumeChatCompletionStreamInit
    deleteResumableSession getMessage chatCompletionStreamInit completionStreamInit
    completionStreamNextChunk completionStreamReturn customRequest keepAlive setLogLevel
    setAppConfig
"""

ERROR_CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.MLCError)
]


OUR_KINDS = ("countTokens", "getGPUMemory", "modelCache", "profileKernels", "registerLocalFiles")


def test_the_kinds_are_webllms_and_some_of_ours() -> None:
    assert sorted(KINDS) == sorted([*WEBLLM_KINDS.split(), *OUR_KINDS])


def test_a_missing_field_is_named() -> None:
    with pytest.raises(errors.MessageFormatError, match=r"reload: content\.modelId is missing"):
        check_content("reload", {"chatOpts": []})
    with pytest.raises(errors.MessageFormatError, match="reload: content is None"):
        check_content("reload", None)


@pytest.mark.parametrize("error_class", ERROR_CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_class_crosses_the_border(error_class: type[errors.MLCError]) -> None:
    message = json.loads(json.dumps(thrown("id", error_class("what to do"), "the traceback")))
    error = error_from(message)
    assert type(error) is error_class
    assert "what to do" in str(error)
    assert error.remote_traceback == "the traceback"


def test_no_error_class_hides_a_builtin_or_misses_the_drawn_tree() -> None:
    assert errors.__doc__
    for error_class in ERROR_CLASSES:
        assert not hasattr(builtins, error_class.__name__)
        assert error_class.__name__ in errors.__doc__


def test_fields_of_an_error_cross_too() -> None:
    error = errors.MissingFileError("gone")
    error.url = "https://example.org/a.bin"  # type: ignore[attr-defined]
    error.found = {1, 2}  # type: ignore[attr-defined]
    received = error_from(thrown("id", error))
    assert received.url == "https://example.org/a.bin"  # type: ignore[attr-defined]
    assert received.found == "{1, 2}"  # type: ignore[attr-defined]


def test_a_foreign_exception_becomes_a_remote_error_that_keeps_its_name() -> None:
    message = thrown("id", KeyError("weights"))
    assert message["content"] == "KeyError: 'weights'"
    error = error_from(message)
    assert isinstance(error, errors.RemoteError)
    assert error.name == "KeyError"
    assert error_from(thrown("id", error)).name == "KeyError"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "error_class", "text"),
    [
        ("ModelNotFoundError: no such model", errors.ModelNotFoundError, "no such model"),
        ("BindingError: Cannot pass", errors.RemoteError, "BindingError: Cannot pass"),
        ("something broke: here", errors.RemoteError, "something broke: here"),
    ],
)
def test_the_strings_of_webllms_handler_are_understood(
    content: str, error_class: type[errors.MLCError], text: str
) -> None:
    error = error_from({"kind": "throw", "uuid": "id", "content": content})
    assert type(error) is error_class
    assert text in str(error)


def test_the_end_of_a_stream_has_no_content() -> None:
    assert "content" not in stream_end("id")  # WebLLM's client takes null for a chunk
