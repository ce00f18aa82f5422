"""Web worker

The engine computes in a worker of its own; the page goes on meanwhile.

Section: Where the engine runs
WebLLM: get-started-web-worker
Docs: web-worker.md
"""

import asyncio

from py_engine import WebWorkerMLCEngine
from py_engine.rpc.transport_browser import create_worker


def show_progress(report):
    print(f"{100 * report.progress:3.0f} % {report.text}")


ticks = []


async def tick():
    while True:
        await asyncio.sleep(0.01)
        ticks.append(1)


worker = create_worker()  # or the URL of another worker, also one of WebLLM's
engine = WebWorkerMLCEngine(worker, {"init_progress_callback": show_progress})
await engine.reload("Llama-Storyteller-7M-q4f16_1-MLC")

clock = asyncio.create_task(tick())
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Tell me a story about a bear."}], max_tokens=50
)
clock.cancel()
print(reply.choices[0].message.content)
print(f"\nMeanwhile the page's clock ticked {len(ticks)} times.")
print(await engine.runtime_stats_text())
engine.terminate()
