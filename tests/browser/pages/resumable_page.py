"""The page of test_resumable.py: docs/resumable-generation.md's scripts, which the page calls.

One source for MicroPython and Pyodide. `call(name, ...)` runs one from JavaScript; it resolves to
text.
"""

import js
from pyscript.ffi import create_proxy

from py_engine import create_web_worker_mlc_engine
from py_engine.rpc.transport_browser import create_worker

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
messages = [{"role": "user", "content": "Tell me a story about a brave little fox."}]
shared = {}


async def load():
    worker = create_worker("./worker/web_worker.mjs")
    shared["engine"] = await create_web_worker_mlc_engine(worker, MODEL)
    return ""


async def whole():
    reply = await shared["engine"].chat.completions.create(
        messages=messages, max_tokens=24, temperature=0
    )
    return reply.choices[0].message.content


async def begin(n_chunks):
    """Read some chunks; the stream stays open for as long as the page is."""
    shared["stream"] = stream = await shared["engine"].chat.completions.create(
        messages=messages,
        max_tokens=24,
        temperature=0,
        stream=True,
        extra_body={"resumable": {"enabled": True, "sessionId": "story"}},
    )
    text = ""
    for _ in range(n_chunks):
        chunk = await stream.__anext__()
        text += chunk.choices[0].delta.content or ""
    return text


async def resume():
    text = ""
    for session in await shared["engine"].list_resumable_sessions():
        if session.resumable:
            stored = await shared["engine"].resume_chat_completion(session.sessionId)
            text += stored.recoveredText
            stream = await shared["engine"].resume_chat_completion(
                session.sessionId, continue_generation=True, stream=True
            )
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
    return text


async def finished():
    (session,) = await shared["engine"].list_resumable_sessions()
    result = await shared["engine"].resume_chat_completion("story", continue_generation=True)
    await shared["engine"].delete_resumable_session("story")
    left = await shared["engine"].list_resumable_sessions()
    return f"{session.reason}, {result.recoveryMode}, {result.reason}, {len(left)}"


async def error_of_second():
    try:
        await begin(1)
    except Exception as error:
        return type(error).__name__
    return "none"


async def call(name, *args):
    return await globals()[name](*args)


js.call = create_proxy(call)
