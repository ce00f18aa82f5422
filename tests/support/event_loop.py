"""Tests that are coroutines: each runs in an event loop of its own, and may not hang."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeAlias

AsyncTest: TypeAlias = Callable[..., Coroutine[Any, Any, None]]


def in_event_loop(test: AsyncTest) -> Callable[..., None]:
    """Make a test of a coroutine function."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), timeout=10))

    return run


def in_clean_event_loop(test: AsyncTest) -> Callable[..., None]:
    """Make a test of a coroutine function, which may leave no task behind in the loop."""

    @in_event_loop
    @wraps(test)
    async def checked(*args: Any, **kwargs: Any) -> None:
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert all("_watch" in repr(task) for task in left), left  # of a device that is in use

    return checked


def call_soon(function: Callable[..., object], *arguments: Any) -> None:
    """Call a function in a moment, unless no event loop runs.

    A stream that is collected after its test says so when nobody listens any more.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop().call_soon(function, *arguments)
