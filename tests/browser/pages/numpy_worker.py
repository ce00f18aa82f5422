"""A worker script whose engine loads nothing, answers with NumPy, and never ends its statistics."""

import asyncio
from typing import Any

import numpy as np


def start(handler: Any) -> None:
    """Replace some of the engine's methods."""

    async def reload(model_id: list[str], chat_opts: Any) -> None:
        await asyncio.sleep(0)

    async def get_gpu_vendor() -> str:
        return f"numpy {np.arange(3).sum()}"

    async def runtime_stats_text(model_id: Any = None) -> None:
        await asyncio.Event().wait()

    handler.engine.reload = reload
    handler.engine.get_gpu_vendor = get_gpu_vendor
    handler.engine.runtime_stats_text = runtime_stats_text
