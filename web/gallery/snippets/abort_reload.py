"""Abort a load

End a load that takes too long; what came stays, and the next load goes on there.

Section: Models
WebLLM: abort-reload
Docs: sources-and-storage.md
"""

import asyncio

from py_engine import WebWorkerMLCEngine
from py_engine.errors import WorkerEngineModelNotLoadedError

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
has_begun = asyncio.Event()


def show(report):
    print(f"{100 * report.progress:3.0f} % {report.text}")
    has_begun.set()


async def ask():
    messages = [{"role": "user", "content": "Hello!"}]
    reply = await engine.chat.completions.create(messages=messages, max_tokens=20)
    return reply.choices[0].message.content


engine = WebWorkerMLCEngine(None, {"init_progress_callback": show})
loading = asyncio.create_task(engine.reload(MODEL))
await has_begun.wait()
await engine.unload()
await loading
try:
    print(await ask())
except WorkerEngineModelNotLoadedError:
    print("The load was ended, no model is loaded.\n")

await engine.reload(MODEL)
print(await ask())
