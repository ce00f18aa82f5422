"""The part of `bench --peers` that runs our engine inside its worker."""

from __future__ import annotations

import json
import time
from typing import Any

import js

from py_engine.engine import MLCEngine


async def measure(
    address: str, context: int, prompt_tokens: int, n_tokens: int, is_again: bool
) -> str:
    """Load the GGUF file at an address and complete prompts; return the figures as JSON.

    The context has room for `context` tokens; each letter of the prompt is a token. A model that
    was loaded before (`is_again`) is only loaded.
    """
    library_s = js.performance.now() / 1000  # since the worker was made
    engine = MLCEngine()
    began = time.perf_counter()
    await engine.reload(address, {"context_window_size": context})
    loaded = time.perf_counter()
    if is_again:
        await engine.unload()
        return json.dumps({"load_again_s": loaded - began})

    # Each with a letter of its own, so that none begins as one before.
    async def ask(letter: str, max_tokens: int) -> Any:
        response = await engine.completions.create(
            prompt=letter * prompt_tokens, max_tokens=max_tokens, temperature=0, ignore_eos=True
        )
        return response.usage

    counts = [js.gpuCounts.here().to_py()]
    await ask("a", 1)
    answered = time.perf_counter()
    counts.append(js.gpuCounts.here().to_py())
    usage = await ask("b", 1 + n_tokens)
    counts.append(js.gpuCounts.here().to_py())
    js.gpuCounts.setOneWorkgroup(True)
    null = await ask("c", 1 + n_tokens)
    await engine.unload()
    figures = {
        "library_s": library_s,
        "load_s": loaded - began,
        "first_answer_s": answered - began,
        "prompt_tokens": usage.prompt_tokens,
        "first_token_s": usage.extra.time_to_first_token_s,
        "prefill_tokens_per_s": usage.extra.prefill_tokens_per_s,
        "decode_tokens_per_s": usage.extra.decode_tokens_per_s,
        "decoded_tokens": n_tokens,
        "null_ms": 1000 / null.extra.decode_tokens_per_s,
        "counts": counts,
        "where": "WebGPU",
    }
    return json.dumps(figures)
