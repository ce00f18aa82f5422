"""Streams of chunks on the worker's side, read by messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any

from py_engine.errors import ModelNotLoadedError, UnknownStreamError

# What `ServedStream.next` returns after the last chunk.
END = object()


class ServedStream:
    """Hands out the chunks of one completion, one reader after the other, until it is closed.

    Nothing is generated ahead: the completion advances only while a reader waits.
    """

    def __init__(self, chunks: AsyncIterable[Any]) -> None:
        self._chunks = aiter(chunks)
        self._turn = asyncio.Lock()
        self._reader: asyncio.Task[Any] | None = None
        self._is_closed = False
        self._error: Exception | None = None

    async def next(self) -> Any:
        """Return the next chunk; END when there is none or the stream was closed.

        Errors: what the completion raises, or what `close` was given.
        """
        async with self._turn:
            if not self._is_closed:
                self._reader = asyncio.current_task()
                try:
                    return await anext(self._chunks)
                except StopAsyncIteration:
                    self._is_closed = True
                except asyncio.CancelledError:
                    if not self._is_closed:  # cancelled by someone else than `close`
                        raise
                    if self._reader is not None:
                        self._reader.uncancel()
                except Exception:
                    self._is_closed = True
                    raise
                finally:
                    self._reader = None
            if self._error is not None:
                raise self._error
            return END

    async def close(self, error: Exception | None = None) -> None:
        """Stop the completion and free what it holds; readers get END, or `error`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._error = error
        if self._reader is not None:
            self._reader.cancel()
        async with self._turn:
            aclose = getattr(self._chunks, "aclose", None)
            if aclose is not None:
                await aclose()


class ServedStreams:
    """The open streams, each under the key that its client chose."""

    def __init__(self) -> None:
        self._streams: dict[str, ServedStream] = {}

    async def open(self, key: str, chunks: AsyncIterable[Any]) -> None:
        """Keep a new stream; closes another with this key, as older clients have one a model."""
        replaced = self._streams.get(key)
        self._streams[key] = ServedStream(chunks)
        if replaced is not None:
            await replaced.close()

    async def next(self, key: str) -> Any:
        """Return a stream's next chunk, or END; a stream that ends or fails is forgotten.

        Errors: UnknownStreamError; what the completion raises.
        """
        stream = self._streams.get(key)
        if stream is None:
            raise UnknownStreamError(f'stream "{key}" has ended, was closed or never opened.')
        try:
            chunk = await stream.next()
        except Exception:
            self._forget(key, stream)
            raise
        if chunk is END:
            self._forget(key, stream)
        return chunk

    async def close(self, key: str) -> None:
        """Close a stream, if there is one, and forget it."""
        stream = self._streams.pop(key, None)
        if stream is not None:
            await stream.close()

    async def fail_all(self, reason: str) -> None:
        """Close all streams; each is kept to tell its reader why, with ModelNotLoadedError."""
        for stream in list(self._streams.values()):
            await stream.close(ModelNotLoadedError(reason))

    async def close_all(self) -> None:
        """Close all streams and forget them."""
        for key in list(self._streams):
            await self.close(key)

    def __len__(self) -> int:
        return len(self._streams)

    def _forget(self, key: str, stream: ServedStream) -> None:
        if self._streams.get(key) is stream:
            del self._streams[key]
