"""The part of `bench --startup` that runs inside the worker, next to the engine."""

from __future__ import annotations

import json
from typing import Any

import js

from py_engine.engine import MLCEngine
from py_engine.models.base import LoadProgress
from py_engine.progress import LoadReporter

_NAMES = {
    "download": "model into storage",
    "weights": "weights onto the GPU",
    "kernels": "kernels",
    "quality": "quality of int8",
    "choice": "choice of kernels",
}


async def load_and_ask(model_id: str) -> str:
    """Load a model and ask for one token; return what took place, as JSON.

    Each is a name with its begin and end, in milliseconds since the worker was made.
    """
    spans: dict[str, list[float]] = {}

    def see(name: str) -> None:
        now = js.performance.now()
        spans.setdefault(name, [now, now])[1] = now

    reporter: Any = LoadReporter  # as Any: its method is replaced for a while
    on_load = reporter.on_load

    def seen(self: LoadReporter, load: LoadProgress) -> None:
        see(_NAMES[load.phase])
        on_load(self, load)

    reporter.on_load = seen
    see("loading, as a whole")
    engine = MLCEngine()
    try:
        await engine.reload(model_id)
    finally:
        reporter.on_load = on_load
    see("loading, as a whole")
    see("first token")
    messages = [{"role": "user", "content": "Tell me a story."}]
    await engine.chat.completions.create(messages=messages, max_tokens=1)
    see("first token")
    await engine.unload()
    return json.dumps([[name, *times] for name, times in spans.items()])
