"""The real `openai.AsyncOpenAI` client on an engine: an httpx transport without a network.

`async_openai(engine)` makes such a client. `engine` is an MLCEngine or a proxy of one, in CPython
or Pyodide. Nothing here imports openai or httpx before a client is made, and it serves both of
httpx's generations, `httpx` and `httpx2`: a response is of the package that its request is of.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import sys
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from py_engine.api.objects import plain
from py_engine.errors import (
    ConfigValueError,
    SpecifiedModelNotFoundError,
    UnsupportedEndpointError,
)
from py_engine.json_values import is_too_deep
from py_engine.openai_transport.event_stream import EventStream
from py_engine.openai_transport.failures import failure

if TYPE_CHECKING:
    import openai
    from httpx2 import AsyncBaseTransport, Request, Response
else:
    AsyncBaseTransport = object  # httpx asks for the methods only

T = TypeVar("T")

# A host name that no network resolves, should a request ever get there.
BASE_URL = "http://engine.invalid/v1"
ENDPOINTS = {
    "/v1/chat/completions": "chat_completion",
    "/v1/completions": "completion",
    "/v1/embeddings": "embedding",
}
MODELS = "/v1/models"


def async_openai(engine: Any, **options: Any) -> openai.AsyncOpenAI:
    """Return OpenAI's client for `engine`; `options` are those of `openai.AsyncOpenAI`.

    It never retries unless `max_retries` says so: what fails here fails again, and a generation
    that ran into `timeout` (10 minutes, as OpenAI's) would start again from its beginning.
    """
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    http_client = DefaultAsyncHttpxClient(transport=EngineTransport(engine))
    defaults: dict[str, Any] = {"api_key": "none", "base_url": BASE_URL, "max_retries": 0}
    return AsyncOpenAI(http_client=http_client, **(defaults | options))


class EngineTransport(AsyncBaseTransport):
    """Answers OpenAI's HTTP requests with an engine, for `httpx.AsyncClient(transport=...)`.

    It serves POST /v1/chat/completions, /v1/completions and /v1/embeddings, and GET /v1/models and
    /v1/models/{id}. Errors become OpenAI's (see failures.py) and ask the client not to retry.
    The client's read timeout is the time for an answer, or between two chunks of a stream.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._made = int(time.time())
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()

    async def __aenter__(self) -> EngineTransport:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def handle_async_request(self, request: Request) -> Response:
        """Answer one request. Raises httpx's ReadTimeout."""
        return await _within_time(request, self._respond(request))

    async def aclose(self) -> None:
        """Close the streams that are still open; the engine stays as it is."""
        for stream in list(self._streams):
            await stream.aclose()

    async def _respond(self, request: Request) -> Response:
        try:
            answer = await self._answer(request)
        except Exception as error:
            status, body = failure(error)
            return _json_response(request, status, body)
        if isinstance(answer, EventStream):
            return self._stream_response(request, answer)
        return _json_response(request, 200, answer)

    async def _answer(self, request: Request) -> Any:
        path = request.url.path
        if request.method == "POST" and path in ENDPOINTS:
            return await self._ask_engine(ENDPOINTS[path], _json_body(await request.aread()))
        if request.method == "GET" and path == MODELS:
            return {"object": "list", "data": [self._model(name) for name in self._model_ids()]}
        if request.method == "GET" and path.startswith(f"{MODELS}/"):
            return self._only_model(path.removeprefix(f"{MODELS}/"))
        raise UnsupportedEndpointError(
            f"{request.method} {path} is not served; POST {', '.join(ENDPOINTS)} and GET {MODELS}, "
            f"{MODELS}/{{id}} are."
        )

    async def _ask_engine(self, endpoint: str, body: dict[str, Any]) -> Any:
        ask = getattr(self._engine, endpoint, None)
        if ask is None:
            raise UnsupportedEndpointError(f"this engine has no `{endpoint}`.")
        model = body.get("model")
        if not body.get("stream"):
            await self._make_way(model)
        answer = await ask(body)
        if not hasattr(answer, "__anext__"):
            return plain(answer)
        stream = EventStream(answer, model)
        self._streams.add(stream)
        return stream

    async def _make_way(self, model: Any) -> None:
        """Free a model, for who now waits for it, of streams that nobody reads any more."""
        if not any(stream.holds_model for stream in self._streams if stream.model == model):
            return
        for _ in range(2):  # turns in which the event loop closes a generator that `break` left
            await asyncio.sleep(0)
        gc.collect()  # a stream of the client is a reference cycle, so a dropped one ends only here
        for stream in list(self._streams):
            if stream.holds_model and stream.model == model:
                stream.read_ahead()

    def _stream_response(self, request: Request, stream: EventStream) -> Response:
        httpx = _httpx(request)
        content = _byte_stream_class(httpx)(self._events(request, stream), stream.aclose)
        # This also keeps the stream itself out of the garbage, in which nothing can be awaited.
        weakref.finalize(content, stream.abandon).atexit = False
        headers = {"content-type": "text/event-stream"}
        return cast("Response", httpx.Response(200, headers=headers, stream=content))

    async def _events(self, request: Request, stream: EventStream) -> AsyncIterator[bytes]:
        await self._make_way(stream.model)
        while (event := await _within_time(request, stream.next())) is not None:
            yield event

    def _model_ids(self) -> list[str]:
        return list(getattr(self._engine, "model_id", None) or ())

    def _model(self, model_id: str) -> dict[str, Any]:
        return {"id": model_id, "object": "model", "created": self._made, "owned_by": "pywebllm"}

    def _only_model(self, model_id: str) -> dict[str, Any]:
        loaded = self._model_ids()
        if model_id not in loaded:
            raise SpecifiedModelNotFoundError(
                f'model "{model_id}" is not loaded (loaded: {", ".join(loaded) or "none"}).'
            )
        return self._model(model_id)


class _ByteStream:
    """The body of a response, to be made an httpx.AsyncByteStream."""

    def __init__(self, content: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]) -> None:
        self._content = content
        self._close = close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._content

    async def aclose(self) -> None:
        await self._close()


@functools.cache
def _byte_stream_class(httpx: ModuleType) -> Any:
    return type("ByteStream", (_ByteStream, httpx.AsyncByteStream), {})


def _httpx(request: Request) -> ModuleType:
    """Return the package of the client: httpx or httpx2, each of which takes only its own."""
    return sys.modules[type(request).__module__.partition(".")[0]]


def _json_response(request: Request, status: int, body: Any) -> Response:
    headers = {"content-type": "application/json"}
    if status != 200:
        headers["x-should-retry"] = "false"
    content = json.dumps(body).encode()
    return cast("Response", _httpx(request).Response(status, headers=headers, content=content))


def _json_body(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode()
        if is_too_deep(text):
            raise ConfigValueError("the request's body is nested deeper than 100 levels.")
        body = json.loads(text)
    except ValueError as error:
        raise ConfigValueError(f"the request's body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise ConfigValueError("the request's body must be a JSON object.")
    return body


async def _within_time(request: Request, awaitable: Awaitable[T]) -> T:
    """Await within the client's read timeout, in seconds; None is for ever."""
    seconds = request.extensions.get("timeout", {}).get("read")
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError as error:
        text = f"no answer of the engine in {seconds} s"
        raise _httpx(request).ReadTimeout(text, request=request) from error
