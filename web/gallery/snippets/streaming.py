"""Streaming

Show an answer while it is written, interrupt it, and see what it cost.

Section: First steps
WebLLM: streaming
Docs: api.md
"""

from py_engine import create_web_worker_mlc_engine

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
stream = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Tell me a story about a dragon."}],
    stream=True,
    stream_options={"include_usage": True},
)

n_chunks = 0
async for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="")
        finish_reason = choice.finish_reason
    if chunk.usage:  # of the last chunk, which has no choices
        print(f"\n\nFinish reason: {finish_reason}, {chunk.usage.completion_tokens} tokens")
        print(f"{chunk.usage.extra.decode_tokens_per_s:.1f} tokens per second")
    n_chunks += 1
    if n_chunks == 40:
        engine.interrupt_generate()
