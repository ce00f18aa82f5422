"""Main thread

The engine itself in the page's Python, without a worker: for small tools and notebooks.

Section: Where the engine runs
WebLLM: get-started
Docs: main-thread.md
Types: py-engine
"""

from py_engine import create_mlc_engine

engine = await create_mlc_engine("Llama-Storyteller-7M-q4f16_1-MLC")
stream = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Tell me a story about a bird."}],
    stream=True,
    max_tokens=40,
)
async for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="")
print(f"\n\n{type(engine).__name__} computes where this code runs: no messages, no worker.")
