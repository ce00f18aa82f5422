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
from weakref import WeakSet

from py_engine.api.objects import plain
from py_engine.errors import (
    MessageFormatError,
    UnknownMessageKindError,
    UnsupportedEndpointError,
)
from py_engine.rpc.contents import (
    Message,
    arguments_of,
    content_of,
    method_of,
    pending_of,
    resume_option,
    stream_key,
)
from py_engine.rpc.images import put_images
from py_engine.rpc.loads import Loads, LoadState
from py_engine.rpc.messages import (
    KINDS,
    check_content,
    heartbeat,
    returned,
    stream_end,
    thrown,
)
from py_engine.rpc.served_client import ServedClient
from py_engine.rpc.served_stream import END

logger = logging.getLogger(__name__)

# Kinds that are one call of the engine, with the content's fields as arguments.
ENGINE_CALLS = frozenset(
    {
        "deleteResumableSession",
        "forwardTokensAndSample",
        "getGPUVendor",
        "getGPUMemory",
        "getMaxStorageBufferBindingSize",
        "getMessage",
        "interruptGenerate",
        "listResumableSessions",
        "modelCache",
        "profileKernels",
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
    to a new MLCEngine; `post_message(message)` defaults to the page that owns this worker, which
    is `owner`.
    """

    # Whether `reload` of what is loaded already loads nothing: in workers that several pages share.
    keeps_loaded_models = False

    def __init__(
        self, engine: Any = None, post_message: Callable[[Message], None] | None = None
    ) -> None:
        self.engine = _new_engine() if engine is None else engine
        self._post = post_message
        self.owner = ServedClient(lambda message: self.post_message(message))
        self._clients: WeakSet[ServedClient] = WeakSet()
        self._loads = Loads(self.engine, lambda: self._clients)
        self._at_once: dict[str, Callable[[ServedClient, Any], object]] = {
            "setLogLevel": self._set_log_level,
            "setAppConfig": self._loads.set_app_config,
            "customRequest": self._custom_request,
        }
        self._own: dict[str, Callable[[ServedClient, Any], Awaitable[Any]]] = {
            "reload": self._reload,
            "unload": self._unload,
            "countTokens": self._count_tokens,
            "registerLocalFiles": self._register_local_files,
            "completionStreamNextChunk": self._next_chunk,
            "completionStreamReturn": self._return_stream,
            "resumeChatCompletion": self._resume,
            "resumeChatCompletionStreamInit": self._resume_stream,
        }

    @property
    def loaded(self) -> LoadState | None:
        """What a client had loaded last; None where nothing is loaded."""
        return self._loads.loaded

    def post_message(self, message: Message) -> None:
        """Send a message to the page that owns this worker; override it to send it elsewhere."""
        if self._post is None:
            from py_engine.rpc.transport_browser import post_to_client

            self._post = post_to_client
        self._post(message)

    def custom_request(self, name: str, message: Any) -> None:
        """Do nothing; a subclass may act on `engine.custom_request(name, message)`."""

    def on_message(
        self, event: Any, client: ServedClient | None = None
    ) -> asyncio.Task[None] | None:
        """Take one message, a JavaScript MessageEvent or a dict; returns at once.

        Whatever is to be said about it goes to `client`, by default the page that owns this worker.
        The task that is returned, if any, has ended when the message was answered.
        """
        client = client or self.owner
        self._clients.add(client)
        try:
            message = event if isinstance(event, dict) else _read(event)
        except MessageFormatError as error:
            if error.uuid:
                client.post(thrown(error.uuid, error))
            return None
        if message is None or "kind" not in message:
            return None  # not of this protocol: other scripts post messages too
        kind, uuid, content = str(message["kind"]), message.get("uuid"), content_of(message)
        if kind == "keepAlive":
            if uuid is not None:  # WebLLM's extension sends none and takes no answer
                client.post(heartbeat(uuid, client.lost(pending_of(content))))
        elif kind in self._at_once:
            self._do_at_once(client, kind, content)
        elif isinstance(uuid, str) and uuid:
            answer = self.handle_task(uuid, lambda: self._answer(client, kind, content), client)
            task = asyncio.ensure_future(answer)
            client.begin(uuid, task)
            return task
        else:
            logger.error("message of kind %r without uuid: nobody could be answered", kind)
        return None

    async def handle_task(
        self, uuid: str, task: Callable[[], Awaitable[Any]], client: ServedClient | None = None
    ) -> None:
        """Run `task` and post what it returns, or raises, as the reply to `uuid`."""
        post = (client or self.owner).post
        try:
            result = await task()
            post(stream_end(uuid) if result is END else returned(uuid, plain(result)))
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            post(thrown(uuid, error, trace))

    async def reload_if_unmatched(
        self,
        expected_model_id: list[str] | None,
        expected_chat_opts: list[dict[str, Any]] | None = None,
        expected_app_config: dict[str, Any] | None = None,
    ) -> None:
        """Load what the client expects to be loaded, if this is something else."""
        expected = {"modelId": expected_model_id, "chatOpts": expected_chat_opts}
        await self._match(self.owner, {**expected, "appConfig": expected_app_config})

    async def _answer(self, client: ServedClient, kind: str, content: Any) -> Any:
        if kind not in KINDS:
            raise UnknownMessageKindError(
                f'worker message of the unknown kind "{kind}"; known are {", ".join(KINDS)}.'
            )
        check_content(kind, content)
        if kind in ENGINE_CALLS:
            return await self._call_engine(method_of(kind), **arguments_of(kind, content))
        if kind in ENDPOINTS:
            return await self._complete(client, kind, content)
        return await self._own[kind](client, content)

    async def _call_engine(self, method: str, *args: Any, **kwargs: Any) -> Any:
        function = getattr(self.engine, method, None)
        if function is None:
            raise UnsupportedEndpointError(f"the engine in this worker has no `{method}`.")
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def _complete(self, client: ServedClient, kind: str, content: dict[str, Any]) -> Any:
        endpoint, is_stream = ENDPOINTS[kind]
        request = content["request"]
        if not isinstance(request, dict) or bool(request.get("stream")) != is_stream:
            raise MessageFormatError(
                f"{kind}: content.request must be an object with `stream` {str(is_stream).lower()}."
            )
        put_images(request, content.get("attachments", []))
        has_id = content.get("streamId") is not None  # WebLLM's client sends none
        with client.request(stream_key(content) if has_id else object()):
            await self._match(client, content)
            result = await self._call_engine(endpoint, request)
        return await client.streams.open(stream_key(content), result) if is_stream else result

    async def _count_tokens(self, client: ServedClient, content: dict[str, Any]) -> Any:
        await self._match(client, content.get("expected") or {})
        arguments = arguments_of("countTokens", content)
        arguments.pop("expected", None)
        return await self._call_engine("count_tokens", **arguments)

    async def _next_chunk(self, client: ServedClient, content: dict[str, Any]) -> Any:
        return await client.streams.next(stream_key(content))

    async def _return_stream(self, client: ServedClient, content: dict[str, Any]) -> None:
        key = stream_key(content)
        client.give_up(key)
        await client.streams.close(key)

    async def _resume(self, client: ServedClient, content: dict[str, Any]) -> Any:
        return await self._resumed(client, content, stream=False)

    async def _resumed(self, client: ServedClient, content: dict[str, Any], *, stream: bool) -> Any:
        await self._match(client, content)
        goes_on = resume_option(content, "continueGeneration")
        is_stream = stream and resume_option(content, "stream")
        return await self._call_engine(
            "resume_chat_completion", content["sessionId"], goes_on, is_stream
        )

    async def _resume_stream(self, client: ServedClient, content: dict[str, Any]) -> Any:
        result = await self._resumed(client, content, stream=True)
        if not hasattr(result, "__aiter__"):
            return result
        return await client.streams.open(content["streamId"], result)

    async def _match(self, client: ServedClient, content: dict[str, Any]) -> None:
        expected = LoadState.of(content)
        if expected is not None:
            await self._loads.match(client, expected)

    async def _reload(self, client: ServedClient, content: dict[str, Any]) -> None:
        wanted = LoadState.of(content)
        assert wanted is not None  # check_content saw to it
        if not self.keeps_loaded_models:
            await self._loads.load(client, wanted)
            return
        with client.request("reload"):
            await self._loads.load_unless_there(client, wanted)

    async def _unload(self, client: ServedClient, _content: None) -> None:
        if "reload" in client.requests:  # others may wait for the same load, or go on without it
            client.give_up("reload")
        else:
            await self._loads.unload()

    async def _register_local_files(self, _client: ServedClient, content: dict[str, Any]) -> str:
        files = content.get("attachments", [])
        return str(await self._call_engine("register_local_files", content["name"], files))

    def _do_at_once(self, client: ServedClient, kind: str, content: Any) -> None:
        try:
            check_content(kind, content)
            self._at_once[kind](client, content)
        except Exception:
            logger.exception("%s failed, and the protocol has no reply for it", kind)

    def _set_log_level(self, _client: ServedClient, level: str) -> None:
        self.engine.set_log_level(level)

    def _custom_request(self, _client: ServedClient, content: dict[str, Any]) -> None:
        self.custom_request(content["requestName"], content.get("requestMessage"))


def _new_engine() -> Any:
    from py_engine.engine import MLCEngine

    return MLCEngine()


def _read(event: Any) -> Message | None:
    from py_engine.rpc.transport_browser import from_js_message

    return from_js_message(event.data)
