"""The shape of OpenAI's client: `engine.chat.completions.create(...)`.

The engine and its proxies have the same; runs on CPython, Pyodide and MicroPython.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Endpoint:
    """`create(**request)` over one endpoint of an engine, which takes the request as a dict."""

    def __init__(self, endpoint: "Callable[[dict[str, Any]], Any]") -> None:
        self._endpoint = endpoint

    async def create(self, **request: "Any") -> "Any":
        """Send a request given as keyword arguments."""
        return await self._endpoint(request)


class Completions(Endpoint):
    """`chat.completions` and `completions`."""


class Embeddings(Endpoint):
    """`embeddings`."""


class Chat:
    """`chat.completions`."""

    def __init__(self, endpoint: "Callable[[dict[str, Any]], Any]") -> None:
        self.completions = Completions(endpoint)
