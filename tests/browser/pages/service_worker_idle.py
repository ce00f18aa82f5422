"""The page of tests/browser/test_service_worker_idle.py: two service workers, one of them idle.

Reports to the server: once when all is loaded, then each time after the idle worker was ended, as
often as `?ends=` in the page's address says.
"""

import json

import js
from pyscript.ffi import create_proxy

import py_engine

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
REQUEST = {
    "messages": [{"role": "user", "content": "Tell me a story about a dog."}],
    "temperature": 0,
    "max_tokens": 12,
}
IDLE, KEPT = "/worker/service_worker.mjs", "/service_worker.mjs"
NEVER_MS = 86_400_000


async def register(path):
    return await py_engine.register_service_worker("." + path, "tests/browser/pages/lock_worker.py")


async def until_ended(path):
    """Wait for the lock that the worker holds, which the browser frees when it ends the worker."""
    await js.navigator.locks.request(path, create_proxy(lambda _lock: None))


async def is_running(path):
    locks = await js.navigator.locks.query()
    return any([lock.name == path for lock in locks.held])


async def ask(engine):
    reply = await engine.chat_completion(REQUEST)
    return reply.choices[0].message.content


async def open_stream(engine):
    return await engine.chat_completion(dict(REQUEST, stream=True))


async def error_of(awaitable):
    try:
        await awaitable
    except Exception as error:
        return type(error).__name__
    return "nothing was raised"


async def rest(stream):
    text = ""
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return text


async def report(**fields):
    await js.fetch("/report?" + js.encodeURIComponent(json.dumps(fields)))


async def main():
    kept = py_engine.ServiceWorkerMLCEngine(await register(KEPT), None, 5_000)
    await kept.get_gpu_vendor()
    idle = await py_engine.create_service_worker_mlc_engine(
        MODEL, keep_alive_ms=NEVER_MS, registration=await register(IDLE)
    )
    await report(story=await ask(idle))
    for _ in range(int(js.location.search.split("ends=")[1])):
        read, unread = await open_stream(idle), await open_stream(idle)
        await read.__anext__()
        await until_ended(IDLE)
        is_kept = await is_running(KEPT)
        error = await error_of(read.__anext__())
        await report(kept=is_kept, error=error, unread=await rest(unread), story=await ask(idle))


async def run():
    try:
        await main()
    except Exception as error:
        await report(failure=f"{type(error).__name__}: {error}")


await run()  # noqa: F704
