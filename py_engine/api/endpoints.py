"""The shape of OpenAI's client: `engine.chat.completions.create(...)`.

The engine and its proxies have the same; runs on CPython, Pyodide and MicroPython.
"""

from py_engine.abort import AbortableStream, until_aborted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any


class Endpoint:
    """`create(**request)` over one endpoint of an engine, which takes the request as a dict."""

    def __init__(self, endpoint: "Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]") -> None:
        self._endpoint = endpoint

    async def create(self, *, signal: "Any" = None, **request: "Any") -> "Any":
        """Send a request given as keyword arguments.

        It ends with AbortError when `signal`, an AbortController's, is aborted.
        """
        reply = await until_aborted(self._endpoint(request), signal)
        if signal is None or not request.get("stream"):
            return reply
        return AbortableStream(reply, signal)


class Completions(Endpoint):
    """`chat.completions` and `completions`."""


class Embeddings(Endpoint):
    """`embeddings`."""


class Chat:
    """`chat.completions`."""

    def __init__(self, endpoint: "Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]") -> None:
        self.completions = Completions(endpoint)
