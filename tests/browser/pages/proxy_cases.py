"""Cases of tests/browser/test_proxy.py: the proxy on the main thread, against a real worker.

One source for MicroPython and Pyodide; JavaScript runs a case with page_support.py's `runCase`.
"""

import asyncio
import json

import js
from page_support import ask, create_proxy, error_of, offer_cases, same, text_of

import py_engine
from py_engine import errors
from py_engine.rpc.channel import Call
from py_engine.rpc.transport_browser import WorkerTransport, create_worker

MODEL = "some-model"
PAGES = "/tests/browser/pages/"
WORKER = PAGES + "scripted_worker.mjs"
shared = {}  # the engine that most cases use, so that the worker boots once


async def engine():
    if "engine" not in shared:
        worker = create_worker(WORKER)
        shared["engine"] = await py_engine.create_web_worker_mlc_engine(worker, MODEL)
    return shared["engine"]


async def case_loading_asks_to_keep_what_is_stored():
    asked = []
    persist = create_proxy(lambda: asked.append("persist"))
    js.navigator.storage.persist = persist
    transport = WorkerTransport(js.MessageChannel.new().port1)
    for kind in ("setAppConfig", "reload", "reload"):
        transport.post({"kind": kind, "uuid": "1", "content": None})
    js.Reflect.deleteProperty(js.navigator.storage, "persist")
    same(asked, ["persist"])


async def case_calls():
    chat = await engine()
    reply = await chat.chat.completions.create(**ask("hello “wörld” 😀"))
    same(reply.choices[0].message.content, "hello “wörld” 😀 ")
    same(reply["model"], MODEL)
    same(await chat.get_message(), "hello “wörld” 😀 ")
    same(await chat.get_max_storage_buffer_binding_size(), 2**31)
    same(await chat.get_gpu_vendor(), "scripted")
    assert "tokens/sec" in await chat.runtime_stats_text()
    await chat.reset_chat()


async def case_streams():
    chat = await engine()
    stream = await chat.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **ask("one two three")
    )
    words, usage = [], None
    async for chunk in stream:
        usage = chunk.usage or usage
        words += [choice.delta.content for choice in chunk.choices]
    same(words, ["one ", "two ", "three ", None])
    same(usage.completion_tokens, 3)
    same(usage.extra.time_to_first_token_s, 0.25)


async def case_completions():
    chat = await engine()
    reply = await chat.completions.create(prompt="once upon")
    same(reply.choices[0].text, "once upon ")
    texts = []
    async for chunk in await chat.completions.create(prompt="a time", stream=True):
        texts += [choice.text for choice in chunk.choices]
    same(texts, ["a ", "time ", ""])
    broken = chat.completions.create(prompt="raise RangeError no", stream=True)
    await error_of(broken, errors.RangeError)


async def case_embeddings_and_counts():
    chat = await engine()
    reply = await chat.embeddings.create(input=["a", "bcd"])
    same([item.embedding[0] for item in reply.data], [1, 3])
    messages = [{"role": "user", "content": "one two three"}]
    same(await chat.count_tokens(messages), 3)
    same(await chat.count_tokens(messages, tools=[{}]), 13)


async def case_hostile_requests():
    chat = await engine()
    deep = []
    for _ in range(2_000):  # freeing ten times as many overflows Pyodide's stack
        deep = [deep]
    asked = chat.chat_completion(ask("hi", tools=deep))
    await error_of(asked, errors.ConfigValueError, "too deeply")
    shallow = []
    for _ in range(15):
        shallow = [shallow]
    request = ask("REQUEST", stop="\0", response_format=shallow)
    reply = await chat.chat_completion(request)
    same(json.loads(reply.choices[0].message.content)["response_format"], shallow)
    reply = await chat.chat_completion(ask("x" * 1_000_000))
    same(len(reply.choices[0].message.content), 1_000_001)


async def case_messages_too_deep_for_python():
    chat = await engine()
    worker = chat._channel._transport._worker
    deep = '{"kind": "getMessage", "uuid": "deep", "content": ' + "[" * 300 + "]" * 300 + "}"
    chat._channel._pending["deep"] = call = Call({"kind": "getMessage"})
    worker.postMessage(js.JSON.parse(deep))
    await error_of(call.reply, errors.MessageFormatError)
    same(await chat.get_gpu_vendor(), "scripted")
    shallow = "[" * 90 + "]" * 90
    chat._channel._pending["deep"] = call = Call({"kind": "getMessage"})
    worker.postMessage(js.JSON.parse(deep.replace("[" * 300 + "]" * 300, shallow)))
    await error_of(call.reply, errors.MessageFormatError, "must be an object")


async def case_streams_side_by_side():
    chat = await engine()
    first = await chat.chat_completion(ask("a b c", stream=True))
    second = await chat.chat_completion(ask("x y z", stream=True))
    same(await asyncio.gather(text_of(first), text_of(second)), ["a b c ", "x y z "])


async def case_aborted_requests():
    chat = await engine()
    controller = py_engine.AbortController()
    create = chat.chat.completions.create
    reply = asyncio.create_task(create(signal=controller.signal, **ask("word " * 2000)))
    stream = await create(signal=controller.signal, stream=True, **ask("a b c"))
    await asyncio.sleep(0.05)
    controller.abort("enough")
    for ended in (reply, stream.__anext__(), create(signal=controller.signal, **ask("late"))):
        same(str(await error_of(ended, errors.AbortError)), "enough")
    same((await create(**ask("next"))).choices[0].message.content, "next ")


async def case_aborted_by_javascript():
    chat = await engine()
    controller = js.AbortController.new()
    stream = await chat.completions.create(prompt="a b", stream=True, signal=controller.signal)
    same((await stream.__anext__()).choices[0].text, "a ")
    controller.abort()
    await error_of(stream.__anext__(), errors.AbortError, "abort")


async def case_dropped_stream():
    chat = await engine()
    await drop_a_stream(chat)
    reply = await chat.chat_completion(ask("next"))
    same(reply.choices[0].message.content, "next ")


async def drop_a_stream(chat):
    async for _chunk in await chat.chat_completion(ask("a b c", stream=True)):
        break


async def case_closed_stream():
    chat = await engine()
    async with await chat.chat_completion(ask("a b c", stream=True)) as stream:
        async for _chunk in stream:
            break
    reply = await chat.chat_completion(ask("next"))
    same(reply.choices[0].message.content, "next ")


async def case_errors():
    chat = await engine()
    asked = chat.chat_completion(ask("raise ContextWindowSizeExceededError long"))
    error = await error_of(asked, errors.ContextWindowSizeExceededError)
    same(str(error), "long")
    same(error.model_id, "some-model")
    assert "scripted_engine.py" in error.remote_traceback
    asked = chat.chat_completion(ask("raise ZeroDivisionError oh"))
    error = await error_of(asked, errors.RemoteError)
    same(error.name, "ZeroDivisionError")
    stream = await chat.chat_completion(ask("fine BREAK", stream=True))
    await error_of(text_of(stream), errors.DeviceLostError)


async def case_refused_arguments():
    chat = await engine()
    for value in ({1}, float("nan"), object()):
        asked = chat.chat_completion(ask("hi", stop=value))
        await error_of(asked, errors.ConfigValueError, "request.stop")
    asked = chat.chat_completion(ask("hi", model="other"))
    await error_of(asked, errors.SpecifiedModelNotFoundError)
    try:
        py_engine.WebWorkerMLCEngine({"not": "a worker"})
    except errors.ConfigValueError:
        return
    raise AssertionError("a worker that is none was taken")


async def case_interrupt():
    chat = await engine()
    answer = asyncio.create_task(chat.chat_completion(ask("word " * 3000)))
    await asyncio.sleep(0.1)
    chat.interrupt_generate()
    reply = await answer
    same(reply.choices[0].finish_reason, "abort")
    assert 0 < len(reply.choices[0].message.content.split()) < 3000


async def case_progress():
    reports = []
    chat = await engine()
    chat.set_init_progress_callback(reports.append)
    await chat.reload([MODEL, "second"])
    same([report.progress for report in reports], [0, 0.5, 1])
    same(reports[1]["timeElapsed"], 0.5)
    same(reports[2].loadedBytes, 8_000_000)
    chat.set_init_progress_callback(None)
    await error_of(chat.reload("missing"), errors.ModelNotFoundError)
    await error_of(chat.chat_completion(ask("hi")), errors.WorkerEngineModelNotLoadedError)
    await chat.reload(MODEL)


async def case_worker_script_missing():
    chat = py_engine.WebWorkerMLCEngine(create_worker(PAGES + "there_is_no_such_worker.mjs"))
    await error_of(chat.reload(MODEL), errors.WorkerFailedError, "could not be loaded")
    await error_of(chat.unload(), errors.WorkerFailedError)


async def case_script_that_fails():
    script = "." + PAGES + "broken_script.py"
    chat = py_engine.WebWorkerMLCEngine(create_worker("./worker/web_worker.mjs", script=script))
    await error_of(chat.reload(MODEL), errors.WorkerFailedError, 'no_such_method("on this line")')


async def case_worker_that_cannot_boot():
    chat = py_engine.WebWorkerMLCEngine(create_worker(PAGES + "broken_worker.mjs"))
    await error_of(chat.reload(MODEL), errors.WorkerFailedError, "no snapshot today")


async def case_terminated_worker():
    chat = py_engine.WebWorkerMLCEngine(create_worker(WORKER))
    loading = asyncio.create_task(chat.reload(MODEL))
    await asyncio.sleep(0.05)
    chat.terminate()
    await error_of(loading, errors.WorkerFailedError)
    await error_of(chat.get_gpu_vendor(), errors.WorkerFailedError)


async def case_foreign_messages():
    chat = await engine()
    worker = create_worker(PAGES + "noisy_worker.mjs")
    noisy = py_engine.WebWorkerMLCEngine(worker)
    same(await noisy.get_gpu_vendor(), "noisy")
    same(await chat.get_gpu_vendor(), "scripted")


async def embedded_model():
    """Return the real engine with the first model of the list, loaded once."""
    if "real" not in shared:
        models = json.loads(await (await js.fetch("/py_engine/model_list.json")).text())
        shared["real"] = py_engine.WebWorkerMLCEngine(create_worker("/worker/web_worker.mjs"))
        await shared["real"].reload(models[0]["model_id"], {"temperature": 0})
    return shared["real"]


async def case_embedded_model_answers():
    chat = await embedded_model()
    request = ask("Tell me a story about a fox.", max_tokens=8)
    reply = await chat.chat_completion(request)
    assert len(reply.choices[0].message.content) > 8
    same(reply.choices[0].finish_reason, "length")
    same(reply.usage.completion_tokens, 8)
    streamed = await text_of(await chat.chat_completion(dict(request, stream=True)))
    same(streamed, reply.choices[0].message.content)
    same(await chat.get_message(), streamed)
    assert "decoding: " in await chat.runtime_stats_text()
    assert await chat.get_max_storage_buffer_binding_size() >= 2**27
    same(type(await chat.get_gpu_vendor()), str)


def new_file(name, text):
    return js.File.new(js.Array.of(text), name)


async def case_local_files():
    chat = await engine()
    picked = [new_file("config.json", "{}"), ["sub/x.bin", new_file("x.bin", "012")]]
    same(await chat.register_local_files("mine", picked), "local:mine")
    same(await chat.get_message(), "mine: config.json={}, sub/x.bin=012")
    chosen = js.DataTransfer.new()  # the only way for a script to a FileList
    chosen.items.add(new_file("x.gguf", "GGUF"))
    await chat.register_local_files("list", chosen.files)
    same(await chat.get_message(), "list: x.gguf=GGUF")
    root = await js.navigator.storage.getDirectory()
    folder = await root.getDirectoryHandle("picked", js.JSON.parse('{"create": true}'))
    await chat.register_local_files("folder", folder)
    same(await chat.get_message(), "folder: =picked")
    await error_of(chat.register_local_files("mine", ["x.gguf"]), errors.ConfigurationFieldError)


async def case_images():
    chat = await engine()
    data = js.ImageData.new(3, 2)
    bitmap = await js.createImageBitmap(data)
    url = "data:image/png;base64,AA=="
    parts = [{"type": "text", "text": "look:"}]
    parts += [{"type": "image_url", "image_url": {"url": u}} for u in (bitmap, url, data)]
    messages = [{"role": "user", "content": parts}]
    reply = await chat.chat.completions.create(messages=messages)
    same(reply.choices[0].message.content, f"look: 3x2 {url} 3x2 ")
    same(parts[1]["image_url"]["url"].width, 3)  # the caller's message is as it was
    words = ""
    async for chunk in await chat.chat.completions.create(messages=messages, stream=True):
        for choice in chunk.choices:
            words += choice.delta.content or ""
    same(words, f"look: 3x2 {url} 3x2 ")


async def case_embedded_model_is_stored():
    chat = await embedded_model()
    for engine_or_none in (chat, None):  # without an engine a worker is started for the call
        stored = await py_engine.list_models_in_cache(
            engine=engine_or_none, worker_url="/worker/web_worker.mjs"
        )
        same([item.model_ids for item in stored], [chat.model_id])
        assert stored[0].files["tokenizer.json"] > 1000, stored
        assert stored[0].stored_bytes > 3000000, stored
    same(await py_engine.has_model_in_cache(chat.model_id[0], engine=chat), True)
    config = {"model_list": [{"model": "models/none/", "model_id": "none"}]}
    same(await py_engine.has_model_in_cache("none", config, engine=chat), False)
    deleting = py_engine.delete_model_in_cache("unheard", engine=chat)
    await error_of(deleting, errors.ModelNotFoundError)


async def case_embedded_model_is_freed():
    chat = await embedded_model()
    request = ask("Tell me a story about a fox.", stream=True)
    stream = await chat.chat_completion(request)
    await stream.__anext__()
    reader = asyncio.create_task(text_of(stream))
    await asyncio.sleep(0)
    await stream.aclose()  # while a chunk is on its way
    await reader
    await drop_a_stream(chat)
    answer = asyncio.create_task(chat.chat_completion(ask("Tell me a story.", max_tokens=400)))
    await asyncio.sleep(0.5)
    chat.interrupt_generate()
    same((await answer).choices[0].finish_reason, "abort")


async def case_embedded_model_refuses():
    chat = await embedded_model()
    await error_of(chat.chat_completion(ask("word " * 5000)), errors.ContextWindowSizeExceededError)
    await error_of(chat.chat_completion(ask("hi", temperature=-1)), errors.NonNegativeError)
    await error_of(chat.embedding({"input": "hi"}), errors.EmbeddingUnsupportedModelError)
    reply = await chat.chat_completion(ask("hi", max_tokens=1))
    same(reply.usage.completion_tokens, 1)


offer_cases(globals())
