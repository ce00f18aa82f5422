"""Cases of tests/browser/test_webllm_handler.py: our proxy, and a worker with WebLLM's handler.

One source for MicroPython and Pyodide; JavaScript runs a case with page_support.py's `runCase`.
"""

import asyncio

import js
from page_support import ask, error_of, offer_cases, same, text_of

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
    await error_of(stream.__anext__(), errors.AbortError, "enough")
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
    await chat.reset_chat()  # so that a message is this reply's
    answer = asyncio.create_task(chat.chat_completion(ask("word " * 5000)))
    while not await chat.get_message():
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
    await error_of(chat.chat_completion(ask("a")), errors.UnclearModelToUseError)
    await error_of(chat.get_message(), errors.UnclearModelToUseError, "Multiple models")
    await error_of(chat.get_message("third"), errors.SpecifiedModelNotFoundError, "third")
    asked = chat.chat_completion(ask("a", model=ENCODER))
    await error_of(asked, errors.IncorrectPipelineLoadedError)


async def case_errors():
    chat = await single()
    complete = chat.chat_completion
    await error_of(chat.reload("missing"), errors.ModelNotFoundError, "Cannot find model record")
    await error_of(complete(ask("hi")), errors.WorkerEngineModelNotLoadedError)
    await error_of(chat.reload([FIRST, FIRST]), errors.ReloadModelIdNotUniqueError)
    await chat.reload(FIRST)
    await error_of(complete(ask("hi", seed=0.5)), errors.SeedTypeError, "seed")
    asked = complete(ask("hi", top_logprobs=7, logprobs=True))
    await error_of(asked, errors.RangeError, "top_logprobs")
    await error_of(complete(ask("hi", temperature=-1)), errors.NonNegativeError, "temperature")
    await error_of(chat.completions.create(prompt="a", suffix="b"), errors.UnsupportedFieldsError)
    stream = await complete(ask("fine BREAK", stream=True))
    error = await error_of(text_of(stream), errors.RemoteError, "the device is gone")
    same((error.name, error.remote_traceback), ("Error", ""))
    await error_of(chat.resume_chat_completion("none"), errors.RemoteError)
    same((await complete(ask("next"))).choices[0].message.content, "next ")


async def case_unload():
    chat = py_engine.WebWorkerMLCEngine(create_worker(WORKER), {"app_config": APP_CONFIG})
    await error_of(chat.get_message(), errors.ModelNotLoadedError)
    await chat.reset_chat()
    await chat.reload(FIRST, {"temperature": 0})
    same((await chat.chat_completion(ask("a"))).choices[0].message.content, "a ")
    await chat.unload()
    await error_of(chat.chat_completion(ask("a")), errors.WorkerEngineModelNotLoadedError)
    await error_of(chat.get_message(), errors.ModelNotLoadedError)
    chat.terminate()


async def case_what_webllm_does_not_know():
    chat = await single()
    running = asyncio.create_task(chat.chat_completion(ask("word " * 100)))
    messages = [{"role": "user", "content": "hi"}]
    for asked in (
        chat.count_tokens(messages),
        chat.get_gpu_memory(),
        chat.profile_kernels(),
        py_engine.list_models_in_cache(engine=chat),
        chat.register_local_files("mine", js.File.new(js.Array.of("GGUF"), "x.gguf")),
    ):
        await error_of(asked, errors.UnknownMessageKindError, "WebLLM")
    same((await running).choices[0].message.content, "word " * 100 + " ")  # it went on
    fresh = py_engine.WebWorkerMLCEngine(create_worker(WORKER))
    await error_of(fresh.get_gpu_memory(), errors.UnknownMessageKindError, "getGPUMemory")
    same(type(await fresh.get_gpu_vendor()), str)
    fresh.terminate()


offer_cases(globals())
