"""Runs in the engine's worker for `bench_proxy_page.py`: an engine that has every chunk ready."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any


def start(handler: Any) -> None:
    """Let nothing be loaded or computed."""
    handler.engine.reload = reload
    handler.engine.chat_completion = chat_completion


async def reload(model_id: list[str], chat_opts: Any) -> None:
    """Load nothing."""


async def chat_completion(request: dict[str, Any]) -> AsyncIterator[Any]:
    """Return the request's `chunk` again and again, as a stream."""
    return chunks(request["chunk"])


async def chunks(chunk: Any) -> AsyncIterator[Any]:
    """Yield the same chunk for ever."""
    while True:
        yield chunk
