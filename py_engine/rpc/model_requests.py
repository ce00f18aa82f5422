"""A proxy's requests to a model: whole replies, streams, and giving them up.

Runs on CPython, Pyodide and MicroPython.
"""

import asyncio

from py_engine.api.objects import ApiObject
from py_engine.model_selection import select_model_id
from py_engine.rpc.chunk_stream import ChunkStream, collect_dropped_streams
from py_engine.rpc.client_values import given, plain_request
from py_engine.rpc.images import without_images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from py_engine.rpc.channel import Channel


class ModelRequests:
    """Sends requests of OpenAI's endpoints over `channel`.

    `state` is what the worker should have loaded, sent along so that it can catch up.
    """

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel

    async def complete(
        self, kind: str, request_name: str, request: "Mapping[str, Any]", state: "dict[str, Any]"
    ) -> "Any":
        """Ask for a completion; with `stream` true return a ChunkStream."""
        collect_dropped_streams()
        request, images = without_images(request)
        request = plain_request(request)
        content = given(request=request, **state)
        selected = select_model_id(content["modelId"], request.get("model"), request_name)
        if not request.get("stream"):
            return ApiObject(await self._ask(f"{kind}NonStreaming", content, images))
        content["selectedModelId"] = selected
        content["streamId"] = stream_id = self._channel.new_uuid()
        await self._ask(f"{kind}StreamInit", content, images)
        return ChunkStream(
            self._channel, stream_id, lambda: self._ask(f"{kind}StreamInit", content, images)
        )

    async def embed(self, request: "Mapping[str, Any]", state: "dict[str, Any]") -> ApiObject:
        """Ask for embeddings."""
        content = given(request=plain_request(request), **state)
        return ApiObject(await self._ask("embedding", content))

    async def resume(
        self, session_id: str, continue_generation: bool, stream: bool, state: "dict[str, Any]"
    ) -> "Any":
        """Ask for a generation that was cut off; a ChunkStream where both flags are set."""
        options = {"continueGeneration": continue_generation, "stream": stream}
        content = given(sessionId=session_id, options=options, **state)
        if not (continue_generation and stream):
            return ApiObject(await self._channel.call("resumeChatCompletion", content))
        kind = "resumeChatCompletionStreamInit"
        content["streamId"] = stream_id = self._channel.new_uuid()
        result = await self._channel.call(kind, content)
        if result is not None:
            return ApiObject(result)
        return ChunkStream(self._channel, stream_id, lambda: self._channel.call(kind, content))

    async def _ask(
        self, kind: str, content: "dict[str, Any]", attachments: "list[Any] | None" = None
    ) -> "Any":
        """Ask a model; when the caller is cancelled, the worker gives the request up too."""
        content["streamId"] = content.get("streamId") or self._channel.new_uuid()
        try:
            return await self._channel.call(kind, content, attachments or None)
        except asyncio.CancelledError:
            if not self._channel.is_closed:
                self._channel.send("completionStreamReturn", {"streamId": content["streamId"]})
            raise
