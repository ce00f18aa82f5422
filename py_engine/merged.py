"""One async generator of several that run at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class _End:
    error: Exception | None


async def merged(streams: Sequence[AsyncGenerator[Item, None]]) -> AsyncGenerator[Item, None]:
    """Yield what any of `streams` yields, in the order in which it comes.

    Together they get no further ahead than one item each. The first error ends all; so does
    closing, and when that has returned, all have ended.
    """
    queue: asyncio.Queue[Item | _End] = asyncio.Queue(len(streams))

    async def pump(stream: AsyncGenerator[Item, None]) -> None:
        error = None
        try:
            async with aclosing(stream):
                async for item in stream:
                    await queue.put(item)
        except Exception as failure:  # whoever reads raises it
            error = failure
        await queue.put(_End(error))

    pumps = [asyncio.ensure_future(pump(stream)) for stream in streams]
    try:
        n_left = len(pumps)
        while n_left:
            item = await queue.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                n_left -= 1
    finally:
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
