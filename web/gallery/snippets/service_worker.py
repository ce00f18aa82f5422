"""Service worker

The engine lives in the site's service worker: pages share it, and it outlives their reloads.

Section: Where the engine runs
WebLLM: service-worker
Docs: pyscript.md
"""

from py_engine import create_service_worker_mlc_engine, register_service_worker

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"


async def connect():
    """Return an engine, as each page makes one, and the reports of its load."""
    reports = []
    config = {"init_progress_callback": reports.append}
    return await create_service_worker_mlc_engine(MODEL, config), reports


await register_service_worker()
engine, reports = await connect()
print(f"{len(reports)} reports until: {reports[-1].text}")

# Another engine, in this page or another one, finds the model loaded. So does this program when
# you run it again, or reload the page.
second, reports = await connect()
print(f"{len(reports)} report for the second one")

for each in (engine, second):
    reply = await each.chat.completions.create(
        messages=[{"role": "user", "content": "Hello!"}], max_tokens=20
    )
    print(reply.choices[0].message.content)
