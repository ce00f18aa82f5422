"""Cases of tests/browser/test_extension.py: the engine's interface in a page of the extension.

One source for MicroPython and Pyodide; JavaScript runs a case with page_support.py's `runCase`.
`killWorker()` and `mend()` are the test's; after the first the model's weights are only in the
browser's storage, before the second Python cannot boot.
"""

import asyncio
import json

import js
import page_support
from page_support import create_proxy, error_of, offer_cases, same, text_of

import py_engine
from py_engine import errors

MODEL = "Llama-Storyteller-7M-q4f16_1-MLC"
shared = {}  # the engine that most cases use


def ask(text, max_tokens=6, **fields):
    return page_support.ask(text, max_tokens=max_tokens, temperature=0, **fields)


async def engine():
    if "engine" not in shared:
        create = py_engine.create_extension_service_worker_mlc_engine
        shared["engine"] = await create(MODEL, {"on_disconnect": lambda: told.append("gone")})
    return shared["engine"]


told = []


async def case_chat():
    chat = await engine()
    reply = await chat.chat_completion(ask("Tell me a story."))
    same(reply.usage.completion_tokens, 6)
    stream = await chat.chat_completion(ask("Tell me a story.", stream=True))
    same(await text_of(stream), reply.choices[0].message.content)
    reply = await chat.completions.create(prompt="Once upon a", max_tokens=4, temperature=0)
    assert reply.choices[0].text.startswith(" time"), reply
    assert await chat.count_tokens([{"role": "user", "content": "Tell me."}]) > 3


async def case_structured_output():
    chat = await engine()
    schema = {
        "type": "object",
        "properties": {"animal": {"enum": ["fox", "owl"]}, "age": {"type": "integer"}},
        "required": ["animal", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_object", "schema": json.dumps(schema)}
    reply = await chat.chat_completion(ask("An animal?", response_format=form, max_tokens=60))
    found = json.loads(reply.choices[0].message.content)
    assert found["animal"] in ("fox", "owl") and isinstance(found["age"], int), found
    grammar = {"type": "grammar", "grammar": 'root ::= "yes" | "no"'}
    reply = await chat.chat_completion(ask("Is it?", response_format=grammar))
    assert reply.choices[0].message.content in ("yes", "no"), reply


async def case_errors_arrive_as_their_class():
    chat = await engine()
    await error_of(chat.chat_completion(ask("word " * 5000)), errors.ContextWindowSizeExceededError)
    await error_of(chat.embedding({"input": "hi"}), errors.EmbeddingUnsupportedModelError)


async def case_images_and_files_are_refused():
    chat = await engine()
    image = {"type": "image_url", "image_url": {"url": js.ImageData.new(1, 1)}}
    message = {"role": "user", "content": [image]}
    asked = chat.chat_completion({"messages": [message]})
    await error_of(asked, errors.ConfigValueError, "JSON only")
    file = js.File.new(js.Array.of("GGUF"), "x.gguf")
    registered = chat.register_local_files("x", file)
    await error_of(registered, errors.ConfigValueError, "JSON only")


async def case_a_second_client_finds_the_model_loaded():
    await engine()
    reports = []
    config = {"init_progress_callback": reports.append}
    other = await py_engine.create_extension_service_worker_mlc_engine(MODEL, config)
    same(len(reports), 1)
    assert reports[0].text.startswith("Finish loading on WebGPU"), reports
    other.terminate()


async def case_other_ports_are_left_alone():
    chat = await engine()
    port = js.chrome.runtime.connect(js.JSON.parse('{"name": "my own"}'))
    answers = []
    listener = create_proxy(lambda message, _port: answers.append(message))
    port.onMessage.addListener(listener)
    port.postMessage(js.JSON.parse('{"kind": "keepAlive", "uuid": "x"}'))
    reply = await chat.chat_completion(ask("Tell me a story."))
    same(reply.usage.completion_tokens, 6)
    same(answers, [])
    port.disconnect()


async def case_clients_at_once_get_their_own_answers():
    chat = await engine()
    other = await py_engine.create_extension_service_worker_mlc_engine(MODEL)
    alone = [
        await text_of(await chat.chat_completion(ask("A", stream=True))),
        await text_of(await chat.chat_completion(ask("B", stream=True))),
    ]
    assert alone[0] != alone[1], alone
    first = asyncio.create_task(text_of(await chat.chat_completion(ask("A", stream=True))))
    second = asyncio.create_task(text_of(await other.chat_completion(ask("B", stream=True))))
    same([await first, await second], alone)
    other.terminate()


async def case_a_client_that_leaves_frees_the_model():
    chat = await engine()
    other = await py_engine.create_extension_service_worker_mlc_engine(MODEL)
    stream = await other.chat_completion(ask("A story.", stream=True, max_tokens=500))
    await stream.__anext__()
    other.terminate()
    reply = await chat.chat_completion(ask("Tell me a story."))
    same(reply.usage.completion_tokens, 6)


async def case_there_is_no_such_extension():
    error = None
    try:
        py_engine.ExtensionServiceWorkerMLCEngine({"extension_id": "none"})
    except errors.ConfigValueError as caught:
        error = caught
    assert "extension_id is 'none'" in str(error), error
    nobody = py_engine.ExtensionServiceWorkerMLCEngine({"extension_id": "a" * 32})
    await error_of(nobody.reload(MODEL), errors.WorkerFailedError, "Receiving end does not exist")


async def case_a_killed_worker_is_started_again():
    chat = await engine()
    stream = await chat.chat_completion(ask("A story.", stream=True, max_tokens=500))
    await stream.__anext__()
    told.clear()
    await js.killWorker()
    await error_of(text_of(stream), errors.WorkerRestartedError)
    same(told, ["gone"])
    reports = []
    chat.set_init_progress_callback(reports.append)
    reply = await chat.chat_completion(ask("Tell me a story."))
    same(reply.usage.completion_tokens, 6)
    same(reports[-1].progress, 1)


async def case_a_request_under_way_is_repeated():
    chat = await engine()
    request = ask("Tell me a story.", max_tokens=30)
    whole = await chat.chat_completion(request)
    asked = asyncio.create_task(chat.chat_completion(request))
    await asyncio.sleep(0)  # it is sent
    told.clear()
    await js.killWorker()
    reply = await asked
    same(told, ["gone"])
    same(reply.choices[0].message.content, whole.choices[0].message.content)


async def broken_extension_says_so_and_can_be_mended():
    create = py_engine.create_extension_service_worker_mlc_engine
    for _ in range(2):
        await error_of(create(MODEL), errors.WorkerFailedError, "could not start")
    await js.mend()
    engine = await create(MODEL)
    reply = await engine.chat_completion(ask("Tell me a story."))
    same(reply.usage.completion_tokens, 6)


offer_cases(globals())
