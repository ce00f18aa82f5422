"""The part of `bench --peers` that runs our engine inside its worker."""

from __future__ import annotations

import json
import time

from py_engine.engine import MLCEngine


async def measure(address: str, context: int, prompt_tokens: int, n_tokens: int) -> str:
    """Load the GGUF file at an address and complete a prompt; return the figures as JSON.

    The context has room for `context` tokens; each letter of the prompt is a token.
    """
    engine = MLCEngine()
    began = time.perf_counter()
    await engine.reload(address, {"context_window_size": context})
    loaded = time.perf_counter()

    async def ask(prompt: str, max_tokens: int) -> dict[str, float]:
        response = await engine.completions.create(
            prompt=prompt, max_tokens=max_tokens, temperature=0, ignore_eos=True
        )
        usage = response.usage
        return {
            "prompt_tokens": usage.prompt_tokens,
            "first_token_s": usage.extra.time_to_first_token_s,
            "prefill_tokens_per_s": usage.extra.prefill_tokens_per_s,
            "decode_tokens_per_s": usage.extra.decode_tokens_per_s,
        }

    await ask("warm", 2)
    figures = await ask("a" * prompt_tokens, n_tokens)
    await engine.unload()
    return json.dumps({"load_s": loaded - began, **figures, "where": "WebGPU"})
