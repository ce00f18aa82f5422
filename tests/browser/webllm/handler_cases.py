"""Cases of tests/browser/test_webllm_handler.py: our proxy, and a worker with WebLLM's handler.

One source for MicroPython and Pyodide. `runCase(name)` runs one from JavaScript and resolves to
"" or to what went wrong.
"""

import asyncio

import js
from pyscript.ffi import create_proxy

import py_engine
from py_engine import errors
from py_engine.rpc.transport_browser import create_worker

WORKER = "/tests/browser/webllm/handler_worker.mjs"
FIRST, SECOND, ENCODER = MODELS = ["first", "second", "encoder"]
APP_CONFIG = {
    "model_list": [
        {"model": "https://example.org/first/", "model_id": FIRST, "model_lib": "x.wasm"},
        {"model": "https://example.org/second/", "model_id": SECOND, "model_lib": "x.wasm"},
        {
            "model": "https://example.org/encoder/",
            "model_id": ENCODER,
            "model_lib": "x.wasm",
            "model_type": 1,
        },
    ]
}
shared = {}  # the engines that most cases use, by their models


async def engine(*models):
    if models not in shared:
        shared[models] = await py_engine.create_web_worker_mlc_engine(
            create_worker(WORKER), list(models), {"app_config": APP_CONFIG}
        )
    return shared[models]


def single():
    return engine(FIRST)


def ask(text, **fields):
    fields["messages"] = [{"role": "user", "content": text}]
    return fields


async def text_of(stream):
    text = ""
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return text


async def raises(kind, awaitable, text=""):
    try:
        await awaitable
    except errors.MLCError as error:
        assert type(error) is kind, f"{type(error)}: {error}"
        assert text in str(error), error
        return error
    raise AssertionError("nothing was raised")


def same(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


async def case_progress():
    chat = py_engine.WebWorkerMLCEngine(create_worker(WORKER), {"app_config": APP_CONFIG})
    reports = []
    chat.set_init_progress_callback(reports.append)
    await chat.reload([FIRST, SECOND])
    same([report.progress for report in reports], [0, 0.5, 1, 0, 0.5, 1])
    same(reports[-1].text, "Loading second")
    same(reports[1].timeElapsed, 0.5)
    chat.terminate()


async def case_calls():
    chat = await single()
    reply = await chat.chat.completions.create(**ask("hello “wörld” 😀", temperature=0.5, seed=1))
    same(reply.choices[0].message.content, "hello “wörld” 😀 ")
    same(reply.choices[0].finish_reason, "stop")
    same(reply.model, FIRST)
    same(reply.usage.total_tokens, 10)
    same(reply.usage.extra.time_to_first_token_s, 0.25)
    same(await chat.get_message(), "hello “wörld” 😀 ")
    same(
        await chat.runtime_stats_text(), "prefill: 28.0000 tokens/sec, decoding: 2.0000 tokens/sec"
    )
    same(await chat.forward_tokens_and_sample([1, 5], True), 6)
    assert await chat.get_max_storage_buffer_binding_size() >= 2**27
    same(type(await chat.get_gpu_vendor()), str)
    await chat.reset_chat()
    same(await chat.get_message(), "")
    for level in ("DEBUG", "SILENT"):
        chat.set_log_level(level)
    chat.custom_request("anything", {"x": 1})
    same(await chat.list_resumable_sessions(), [])
    same(
        (await chat.chat_completion(ask("a b c", max_tokens=2))).choices[0].finish_reason, "length"
    )


async def case_streams():
    chat = await single()
    options = {"include_usage": True}
    stream = await chat.chat_completion(ask("one two three", stream=True, stream_options=options))
    words, usage, reason = [], None, None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            words.append(choice.delta.content)
            reason = choice.finish_reason or reason
    same(words, ["one ", "two ", "three ", None])
    same((reason, usage.completion_tokens), ("stop", 3))
    first = await chat.chat_completion(ask("a b", stream=True))
    second = await chat.chat_completion(ask("x y", stream=True))
    same(await asyncio.gather(text_of(first), text_of(second)), ["a b ", "x y "])


async def case_streams_that_are_left():
    chat = await single()
    async with await chat.chat_completion(ask("word " * 1000, stream=True)) as stream:
        async for _chunk in stream:
            break
    same((await chat.chat_completion(ask("next"))).choices[0].message.content, "next ")
    await drop_a_stream(chat)
    same((await chat.chat_completion(ask("next"))).choices[0].message.content, "next ")
    unread = await chat.chat_completion(ask("word " * 1000, stream=True))
    await unread.aclose()
    same((await chat.chat_completion(ask("next"))).choices[0].message.content, "next ")


async def drop_a_stream(chat):
    async for _chunk in await chat.chat_completion(ask("word " * 1000, stream=True)):
        break


async def case_aborted_stream():
    chat = await single()
    controller = py_engine.AbortController()
    request = ask("word " * 1000, stream=True)
    stream = await chat.chat.completions.create(signal=controller.signal, **request)
    await stream.__anext__()
    controller.abort("enough")
    await raises(errors.AbortError, stream.__anext__(), "enough")
    same((await chat.chat_completion(ask("next"))).choices[0].message.content, "next ")


async def case_completions():
    chat = await single()
    reply = await chat.completions.create(prompt="once upon", echo=True)
    same(reply.choices[0].text, "once upononce upon ")
    texts = []
    async for chunk in await chat.completions.create(prompt="a time", stream=True):
        texts += [choice.text for choice in chunk.choices]
    same(texts, ["a ", "time ", ""])


async def case_interrupt():
    chat = await single()
    answer = asyncio.create_task(chat.chat_completion(ask("word " * 5000)))
    while await chat.get_message() != "word ":
        await asyncio.sleep(0)
    chat.interrupt_generate()
    same((await answer).choices[0].finish_reason, "abort")


async def case_several_models():
    chat = await engine(*MODELS)
    first, second = await asyncio.gather(
        chat.chat_completion(ask("a", model=FIRST)), chat.chat_completion(ask("b", model=SECOND))
    )
    same((first.model, second.model), (FIRST, SECOND))
    same(await chat.get_message(SECOND), "b ")
    vectors = await chat.embeddings.create(input=["a", "bcd"], model=ENCODER)
    same([item.embedding for item in vectors.data], [[1], [3]])
    same(vectors.usage.extra.prefill_tokens_per_s, 12)
    await raises(errors.UnclearModelToUseError, chat.chat_completion(ask("a")))
    await raises(errors.UnclearModelToUseError, chat.get_message(), "Multiple models")
    await raises(errors.SpecifiedModelNotFoundError, chat.get_message("third"), "third")
    await raises(errors.IncorrectPipelineLoadedError, chat.chat_completion(ask("a", model=ENCODER)))


async def case_errors():
    chat = await single()
    complete = chat.chat_completion
    await raises(errors.ModelNotFoundError, chat.reload("missing"), "Cannot find model record")
    await raises(errors.WorkerEngineModelNotLoadedError, complete(ask("hi")))
    await raises(errors.ReloadModelIdNotUniqueError, chat.reload([FIRST, FIRST]))
    await chat.reload(FIRST)
    await raises(errors.SeedTypeError, complete(ask("hi", seed=0.5)), "seed")
    await raises(
        errors.RangeError, complete(ask("hi", top_logprobs=7, logprobs=True)), "top_logprobs"
    )
    await raises(errors.NonNegativeError, complete(ask("hi", temperature=-1)), "temperature")
    await raises(errors.UnsupportedFieldsError, chat.completions.create(prompt="a", suffix="b"))
    stream = await complete(ask("fine BREAK", stream=True))
    error = await raises(errors.RemoteError, text_of(stream), "the device is gone")
    same((error.name, error.remote_traceback), ("Error", ""))
    error = await raises(errors.RemoteError, chat.resume_chat_completion("none"))
    same((await complete(ask("next"))).choices[0].message.content, "next ")


async def case_unload():
    chat = py_engine.WebWorkerMLCEngine(create_worker(WORKER), {"app_config": APP_CONFIG})
    await raises(errors.ModelNotLoadedError, chat.get_message())
    await chat.reset_chat()
    await chat.reload(FIRST, {"temperature": 0})
    same((await chat.chat_completion(ask("a"))).choices[0].message.content, "a ")
    await chat.unload()
    await raises(errors.WorkerEngineModelNotLoadedError, chat.chat_completion(ask("a")))
    await raises(errors.ModelNotLoadedError, chat.get_message())
    chat.terminate()


async def case_what_webllm_does_not_know():
    chat = await single()
    running = asyncio.create_task(chat.chat_completion(ask("word " * 100)))
    messages = [{"role": "user", "content": "hi"}]
    for asked in (
        chat.count_tokens(messages),
        chat.get_gpu_memory(),
        py_engine.list_models_in_cache(engine=chat),
        chat.register_local_files("mine", js.File.new(js.Array.of("GGUF"), "x.gguf")),
    ):
        await raises(errors.UnknownMessageKindError, asked, "WebLLM")
    same((await running).choices[0].message.content, "word " * 100 + " ")  # it went on
    fresh = py_engine.WebWorkerMLCEngine(create_worker(WORKER))
    await raises(errors.UnknownMessageKindError, fresh.get_gpu_memory(), "getGPUMemory")
    same(type(await fresh.get_gpu_vendor()), str)
    fresh.terminate()


async def run_case(name):
    try:
        await globals()[f"case_{name}"]()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


js.caseNames = ",".join(sorted(name[5:] for name in globals() if name.startswith("case_")))
js.runCase = create_proxy(run_case)
