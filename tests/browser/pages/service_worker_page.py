"""A page of tests/browser/test_service_worker.py, on MicroPython or Pyodide.

`run(name, arguments)` calls a function here from JavaScript, with a JSON object of arguments, and
resolves to JSON text of its result or its error.
"""

import json

import js
from pyscript.ffi import create_proxy

import py_engine

state = {}


async def start(url, model, **options):
    """Register the worker and load the model; return the texts of the progress reports."""
    registration = await py_engine.register_service_worker(url, options.pop("script", None))
    state["registration"] = registration
    return await create(model, registration=registration, **options)


async def create(model, app_config=None, **options):
    told = []
    config = {"init_progress_callback": lambda report: told.append(report.text)}
    if app_config is not None:
        config["app_config"] = app_config
    state["engine"] = await py_engine.create_service_worker_mlc_engine(model, config, **options)
    return told


async def ask(text, **fields):
    messages = [{"role": "user", "content": text}]
    reply = await state["engine"].chat_completion(dict(messages=messages, **fields))
    return reply.choices[0].message.content


async def open_stream(text, **fields):
    messages = [{"role": "user", "content": text}]
    request = dict(messages=messages, stream=True, **fields)
    state["stream"] = await state["engine"].chat_completion(request)


async def next_chunk():
    chunk = await state["stream"].__anext__()
    return chunk.choices[0].delta.content


async def rest():
    text = ""
    async for chunk in state["stream"]:
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return text


async def call(method, *arguments):
    result = getattr(state["engine"], method)(*arguments)
    return await result if hasattr(result, "send") else result


async def missed_heartbeat():
    return state["engine"].missed_heartbeat


async def unregister():
    await state["registration"].unregister()


async def run(name, arguments):
    try:
        result = await globals()[name](**json.loads(arguments))
        return json.dumps({"result": result})
    except Exception as error:
        return json.dumps({"error": type(error).__name__, "text": str(error)})


js.run = create_proxy(run)
