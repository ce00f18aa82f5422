"""`WebWorkerMLCEngineHandler`: answers WebLLM's worker messages with an engine.

It runs next to the engine and sees only dicts: JavaScript is behind `post_message` and behind
transport_browser, so that everything here runs and is tested in CPython too.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from py_engine.api.objects import plain
from py_engine.config import AppConfig, InitProgressReport
from py_engine.errors import (
    ConfigurationError,
    MessageFormatError,
    UnknownMessageKindError,
    UnsupportedEndpointError,
)
from py_engine.rpc.contents import Message, arguments_of, content_of, method_of, stream_key
from py_engine.rpc.images import put_images
from py_engine.rpc.messages import (
    HEARTBEAT,
    INIT_PROGRESS,
    KINDS,
    check_content,
    returned,
    stream_end,
    thrown,
)
from py_engine.rpc.served_stream import END, ServedStreams

logger = logging.getLogger(__name__)

# Kinds that are one call of the engine, with the content's fields as arguments.
ENGINE_CALLS = frozenset(
    {
        "countTokens",
        "deleteResumableSession",
        "forwardTokensAndSample",
        "getGPUVendor",
        "getGPUMemory",
        "getMaxStorageBufferBindingSize",
        "getMessage",
        "interruptGenerate",
        "listResumableSessions",
        "modelCache",
        "resetChat",
        "runtimeStatsText",
    }
)

# Kinds that carry a request for a model: the engine's endpoint, and whether it streams.
ENDPOINTS = {
    "chatCompletionNonStreaming": ("chat_completion", False),
    "chatCompletionStreamInit": ("chat_completion", True),
    "completionNonStreaming": ("completion", False),
    "completionStreamInit": ("completion", True),
    "embedding": ("embedding", False),
}


class WebWorkerMLCEngineHandler:
    """Serves one engine to the clients that send it messages.

    Every request is a task of its own, so that none waits behind a generation. `engine` defaults
    to a new MLCEngine; `post_message(message)` defaults to the page that owns this worker.
    """

    def __init__(
        self, engine: Any = None, post_message: Callable[[Message], None] | None = None
    ) -> None:
        self.engine = _new_engine() if engine is None else engine
        self.model_id: list[str] | None = None
        self.chat_opts: list[dict[str, Any]] | None = None
        self._post = post_message
        self._config_error: ConfigurationError | None = None  # told to the next load
        self._loads = 0  # counts reloads and unloads, so that only the latest sets the state
        self._matching = asyncio.Lock()
        self._streams = ServedStreams()
        self._requests: dict[object, asyncio.Task[Any] | None] = {}  # to the engine, by streamId
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once: dict[str, Callable[[Any], object]] = {
            "setLogLevel": self._set_log_level,
            "setAppConfig": self._set_app_config,
            "customRequest": self._custom_request,
        }
        self._own: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "reload": self._reload,
            "unload": self._unload,
            "registerLocalFiles": self._register_local_files,
            "completionStreamNextChunk": self._next_chunk,
            "completionStreamReturn": self._return_stream,
            "resumeChatCompletion": self._resume,
            "resumeChatCompletionStreamInit": self._resume_stream,
        }
        self.engine.set_init_progress_callback(self._report_progress)

    def post_message(self, message: Message) -> None:
        """Send a message to the client; override it to send it elsewhere."""
        if self._post is None:
            from py_engine.rpc.transport_browser import post_to_client

            self._post = post_to_client
        self._post(message)

    def custom_request(self, name: str, message: Any) -> None:
        """Do nothing; a subclass may act on `engine.custom_request(name, message)`."""

    def on_message(self, event: Any) -> None:
        """Take one message, a JavaScript MessageEvent or a dict; returns at once."""
        try:
            message = event if isinstance(event, dict) else _read(event)
        except MessageFormatError as error:
            if error.uuid:
                self.post_message(thrown(error.uuid, error))
            return
        if message is None or "kind" not in message:
            return  # not of this protocol: other scripts post messages too
        kind, uuid, content = str(message["kind"]), message.get("uuid"), content_of(message)
        if kind == "keepAlive":
            self.post_message({"kind": HEARTBEAT, "uuid": uuid})
        elif kind in self._at_once:
            self._do_at_once(kind, content)
        elif uuid:
            task = asyncio.ensure_future(
                self.handle_task(uuid, lambda: self._answer(kind, content))
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            logger.error("message of kind %r without uuid: nobody could be answered", kind)

    async def handle_task(self, uuid: str, task: Callable[[], Awaitable[Any]]) -> None:
        """Run `task` and post what it returns, or raises, as the reply to `uuid`."""
        try:
            result = await task()
            self.post_message(stream_end(uuid) if result is END else returned(uuid, plain(result)))
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            self.post_message(thrown(uuid, error, trace))

    async def reload_if_unmatched(
        self,
        expected_model_id: list[str] | None,
        expected_chat_opts: list[dict[str, Any]] | None = None,
    ) -> None:
        """Load what the client expects to be loaded, if this is something else.

        A service worker that the browser ended starts again empty, while its clients go on.
        """
        if expected_model_id is None:
            return
        async with self._matching:
            if self.model_id == expected_model_id and _are_same_options(
                self.chat_opts, expected_chat_opts
            ):
                return
            logger.warning(
                "a client expects %s to be loaded, but here it is %s: reloading",
                expected_model_id,
                self.model_id,
            )
            await self._load(expected_model_id, expected_chat_opts)

    async def _answer(self, kind: str, content: Any) -> Any:
        if kind not in KINDS:
            raise UnknownMessageKindError(
                f'worker message of the unknown kind "{kind}"; known are {", ".join(KINDS)}.'
            )
        check_content(kind, content)
        if kind in ENGINE_CALLS:
            return await self._call_engine(method_of(kind), **arguments_of(kind, content))
        if kind in ENDPOINTS:
            return await self._complete(kind, content)
        return await self._own[kind](content)

    async def _call_engine(self, method: str, *args: Any, **kwargs: Any) -> Any:
        function = getattr(self.engine, method, None)
        if function is None:
            raise UnsupportedEndpointError(f"the engine in this worker has no `{method}`.")
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def _complete(self, kind: str, content: dict[str, Any]) -> Any:
        endpoint, is_stream = ENDPOINTS[kind]
        request = content["request"]
        if not isinstance(request, dict) or bool(request.get("stream")) != is_stream:
            raise MessageFormatError(
                f"{kind}: content.request must be an object with `stream` {str(is_stream).lower()}."
            )
        put_images(request, content.get("attachments", []))
        await self.reload_if_unmatched(content.get("modelId"), content.get("chatOpts"))
        stream_id = content.get("streamId", object())  # WebLLM's client sends none
        self._requests[stream_id] = asyncio.current_task()
        try:
            result = await self._call_engine(endpoint, request)
        finally:
            del self._requests[stream_id]
        return await self._streams.open(stream_key(content), result) if is_stream else result

    async def _next_chunk(self, content: dict[str, Any]) -> Any:
        return await self._streams.next(stream_key(content))

    async def _return_stream(self, content: dict[str, Any]) -> None:
        request = self._requests.get(content["streamId"])
        if request is not None:
            request.cancel()
        await self._streams.close(content["streamId"])

    async def _resume(self, content: dict[str, Any]) -> Any:
        return await self._call_engine(
            "resume_chat_completion", content["sessionId"], content.get("options")
        )

    async def _resume_stream(self, content: dict[str, Any]) -> Any:
        result = await self._resume(content)
        if not hasattr(result, "__aiter__"):
            return result
        return await self._streams.open(content["streamId"], result)

    async def _reload(self, content: dict[str, Any]) -> None:
        await self._load(content["modelId"], content.get("chatOpts"))

    async def _load(
        self, model_id: str | list[str], chat_opts: list[dict[str, Any]] | None
    ) -> None:
        this_load = await self._forget_models()
        if self._config_error is not None:
            raise self._config_error
        model_ids = [model_id] if isinstance(model_id, str) else model_id
        await self._call_engine("reload", model_ids, chat_opts)
        if this_load == self._loads:
            self.model_id, self.chat_opts = model_ids, chat_opts

    async def _unload(self, _content: None) -> None:
        await self._forget_models()
        await self._call_engine("unload")

    async def _register_local_files(self, content: dict[str, Any]) -> str:
        files = content.get("attachments", [])
        return str(await self._call_engine("register_local_files", content["name"], files))

    async def _forget_models(self) -> int:
        """Note that nothing is loaded and end the open streams; returns the count of loads."""
        self._loads += 1
        this_load = self._loads
        self.model_id = self.chat_opts = None
        await self._streams.fail_all("the model was unloaded during this stream.")
        return this_load

    def _do_at_once(self, kind: str, content: Any) -> None:
        try:
            check_content(kind, content)
            self._at_once[kind](content)
        except Exception:
            logger.exception("%s failed, and the protocol has no reply for it", kind)

    def _set_log_level(self, level: str) -> None:
        self.engine.set_log_level(level)

    def _set_app_config(self, app_config: dict[str, Any]) -> None:
        self._config_error = None
        try:
            self.engine.set_app_config(AppConfig.from_dict(app_config))
        except ConfigurationError as error:
            self._config_error = error
            raise

    def _custom_request(self, content: dict[str, Any]) -> None:
        self.custom_request(content["requestName"], content.get("requestMessage"))

    def _report_progress(self, report: InitProgressReport) -> None:
        self.post_message({"kind": INIT_PROGRESS, "uuid": "", "content": report.to_dict()})


def _new_engine() -> Any:
    from py_engine.engine import MLCEngine

    return MLCEngine()


def _read(event: Any) -> Message | None:
    from py_engine.rpc.transport_browser import from_js_message

    return from_js_message(event.data)


def _are_same_options(
    left: list[dict[str, Any]] | None, right: list[dict[str, Any]] | None
) -> bool:
    return left == right or not (any(left or ()) or any(right or ()))
