"""Latency breakdown

Where the time of an answer goes, token by token.

Section: Control
WebLLM: get-started-latency-breakdown
Docs: performance.md api.md
"""

from py_engine import create_web_worker_mlc_engine

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Tell me a story about a cat."}],
    response_format={"type": "json_object"},
    extra_body={"enable_latency_breakdown": True},
    max_tokens=30,
)
extra = reply.usage.extra
print(f"first token after {extra.time_to_first_token_s:.3f} s")
print(f"{extra.decode_tokens_per_s:.1f} tokens per second\n")
for name, seconds in extra.latencyBreakdown.model_dump().items():
    if seconds:
        mean = 1000 * sum(seconds) / len(seconds)
        print(f"{name}: {mean:.2f} ms for each of {len(seconds)} tokens")
