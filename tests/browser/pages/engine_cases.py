"""What a user of an engine relies on, whichever engine it is: the cases of test_engines.py.

One list for all engines, run on a page by Pyodide and by MicroPython, in any order. Each case gets
an engine that has loaded the three models of APP_CONFIG; those of OTHER_MODELS load for themselves.
"""

import asyncio
import gc
import json

from page_support import error_of, same

from py_engine import AbortController, errors

STORY_URL = "./models/Llama-Storyteller-7M-q4f16_1-MLC/"
BERT_URL = "./test-models/tiny-bert/"  # served by test_engines.py
STORY, TWIN, BERT = MODELS = ["storyteller", "twin", "tiny-bert"]
CHAT_OPTS = [{}, {"repetition_penalty": 2}, {"pooling": "mean", "normalize": True}]
WRONG_HASH = "sha256-" + "A" * 43 + "="


def record(model_id, url, **fields):
    fields.update(model=url, model_id=model_id, model_lib="")
    return fields


APP_CONFIG = {
    "model_list": [
        record(STORY, STORY_URL),
        record(TWIN, STORY_URL),
        record(BERT, BERT_URL, model_type=1),
    ]
}
OTHER_APP_CONFIG = {
    "model_list": [
        record("renamed", BERT_URL, model_type=1, overrides={"normalize": False}),
        record("damaged", STORY_URL, integrity={"config": WRONG_HASH}),
    ]
}
FOX = [{"role": "user", "content": "Tell me a story about a fox."}]
LONG = [{"role": "user", "content": "word " * 1100}]
ANIMAL_SCHEMA = {
    "type": "object",
    "properties": {"brave": {"type": "boolean"}, "legs": {"enum": [2, 4]}},
    "required": ["brave", "legs"],
    "additionalProperties": False,
}
OTHER_MODELS = ("abort_of_a_load", "another_app_config", "fields_of_errors")
reports = []  # of the progress of the last load


def ask(engine, **fields):
    """Ask for a reply, by default for the eight likeliest tokens about a fox."""
    request = {"model": STORY, "messages": FOX, "temperature": 0, "max_tokens": 8}
    request.update(fields)
    return engine.chat.completions.create(**request)


async def answer(engine, **fields):
    """Return the text of a reply."""
    return (await ask(engine, **fields)).choices[0].message.content


async def collect(stream):
    chunks = []
    async for chunk in stream:
        chunks.append(chunk)  # noqa: PERF401  MicroPython has no other way
    return chunks


def text_of(chunks):
    return "".join([c.delta.content or "" for chunk in chunks for c in chunk.choices])


def reason_of(chunks):
    """Return the finish_reason, which the last choice alone has."""
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert not any(reasons[:-1]), reasons
    return reasons[-1]


async def load(engine):
    """Load the models of the cases, unless they are."""
    if engine.model_id != MODELS:
        reports.clear()
        engine.set_app_config(APP_CONFIG)
        engine.set_init_progress_callback(reports.append)
        await engine.reload(MODELS, CHAT_OPTS)


async def case_load_tells_its_progress(engine):
    same(list(engine.model_id), MODELS)
    progress = [report.progress for report in reports]
    same(progress, sorted(progress))
    same(progress[-1], 1)
    assert len(reports) > 6 and 0 <= progress[0] < 0.5, progress
    assert all([report.text and report.timeElapsed >= 0 for report in reports]), reports


async def case_chat(engine):
    reply = await ask(engine)
    (choice,) = reply.choices
    same((reply.object, reply.model), ("chat.completion", STORY))
    same((choice.index, choice.message.role, choice.finish_reason), (0, "assistant", "length"))
    assert len(choice.message.content) > 10, choice
    assert reply.usage.prompt_tokens > 5, reply.usage
    same(reply.usage.completion_tokens, 8)
    same(reply.usage.total_tokens, 8 + reply.usage.prompt_tokens)


async def case_stream(engine):
    chunks = await collect(await ask(engine, stream=True))
    same(text_of(chunks), await answer(engine))
    same(reason_of(chunks), "length")
    assert 4 < len(chunks) < 12, chunks
    first = chunks[0]
    same((first.object, first.model), ("chat.completion.chunk", STORY))
    assert all([chunk.id == first.id and not chunk.usage for chunk in chunks]), chunks


async def case_stream_with_usage(engine):
    options = {"include_usage": True}
    chunks = await collect(await ask(engine, stream=True, stream_options=options))
    last = chunks.pop()
    same((list(last.choices), last.usage.completion_tokens), ([], 8))
    same(reason_of(chunks), "length")
    same(text_of(chunks), await answer(engine))


async def case_second_turn(engine):
    first = await ask(engine)
    text = first.choices[0].message.content
    turns = [{"role": "assistant", "content": text}, {"role": "user", "content": "And then?"}]
    second = await ask(engine, messages=FOX + turns)
    assert second.usage.prompt_tokens > first.usage.total_tokens, second.usage
    assert second.choices[0].message.content != text, text


async def case_stop(engine):
    text = await answer(engine)
    word = text.split()[3]
    reply = await ask(engine, stop=word)
    same(reply.choices[0].message.content, text[: text.index(word)])
    same(reply.choices[0].finish_reason, "stop")
    chunks = await collect(await ask(engine, stop=[word], stream=True))
    same((text_of(chunks), reason_of(chunks)), (text[: text.index(word)], "stop"))


async def case_max_tokens(engine):
    text = await answer(engine, max_tokens=3)
    assert (await answer(engine)).startswith(text), text
    same((await ask(engine, max_tokens=1)).usage.completion_tokens, 1)


async def case_choices_and_seed(engine):
    request = {"n": 2, "seed": 7, "temperature": 1.5}
    first = await ask(engine, **request)
    texts = [choice.message.content for choice in first.choices]
    same([choice.index for choice in first.choices], [0, 1])
    assert texts[0] != texts[1], texts
    again = await ask(engine, **request)
    same([choice.message.content for choice in again.choices], texts)
    assert await answer(engine, seed=8, temperature=1.5) != texts[0], texts


async def case_logprobs(engine):
    reply = await ask(engine, logprobs=True, top_logprobs=2, max_tokens=4)
    entries = reply.choices[0].logprobs.content
    same("".join([entry.token for entry in entries]), reply.choices[0].message.content)
    for entry in entries:
        first, second = entry.top_logprobs
        same(first.token, entry.token)  # the likeliest was drawn
        assert second.logprob <= first.logprob <= 0, entry


async def case_json_schema(engine):
    openais = {"type": "json_schema", "json_schema": {"name": "x", "schema": ANIMAL_SCHEMA}}
    webllms = {"type": "json_object", "schema": json.dumps(ANIMAL_SCHEMA)}
    for response_format in (openais, webllms):
        reply = await ask(engine, response_format=response_format, max_tokens=60)
        found = json.loads(reply.choices[0].message.content)
        same(sorted(found), ["brave", "legs"])
        assert found["brave"] in (True, False) and found["legs"] in (2, 4), found


async def case_text_completion(engine):
    request = {"model": STORY, "prompt": "Once upon a", "temperature": 0, "max_tokens": 6}
    reply = await engine.completions.create(**request)
    same((reply.object, reply.usage.completion_tokens), ("text_completion", 6))
    text = reply.choices[0].text
    assert text.startswith(" time"), text
    chunks = await collect(await engine.completions.create(stream=True, **request))
    same("".join([choice.text for chunk in chunks for choice in chunk.choices]), text)


async def case_embeddings(engine):
    reply = await engine.embeddings.create(model=BERT, input=["a fox", "the sea", "a fox"])
    same([(item.object, item.index) for item in reply.data], [("embedding", i) for i in range(3)])
    fox, sea, again = [list(item.embedding) for item in reply.data]
    same(fox, again)
    assert abs(length_of(fox) - 1) < 1e-4 and fox != sea, fox
    assert reply.usage.prompt_tokens > 6, reply.usage


def length_of(vector):
    return sum([x * x for x in vector]) ** 0.5


async def case_model_is_chosen_by_its_id(engine):
    for model in (STORY, TWIN):
        same((await ask(engine, model=model)).model, model)
    assert await answer(engine, max_tokens=24) != await answer(engine, model=TWIN, max_tokens=24)
    error = await error_of(ask(engine, model=None), errors.UnclearModelToUseError)
    assert STORY in str(error) and TWIN in str(error), error
    await error_of(ask(engine, model="nobody"), errors.SpecifiedModelNotFoundError, "nobody")
    await error_of(ask(engine, model=BERT), errors.IncorrectPipelineLoadedError)
    embedding = engine.embeddings.create(model=STORY, input="a fox")
    await error_of(embedding, errors.EmbeddingUnsupportedModelError)


async def case_two_models_at_once(engine):
    came = []

    async def read(model):
        text = ""
        async for chunk in await ask(engine, model=model, stream=True, max_tokens=24):
            came.append(model)
            text += text_of([chunk])
        return text

    story = await answer(engine, max_tokens=24)
    twin = await answer(engine, model=TWIN, max_tokens=24)
    same(await asyncio.gather(read(STORY), read(TWIN)), [story, twin])
    turns = len([i for i in range(1, len(came)) if came[i] != came[i - 1]])
    assert turns > 10, came  # they took turns all the time


async def case_embeddings_during_a_reply(engine):
    chunks = []
    async for chunk in await ask(engine, stream=True, max_tokens=12):
        chunks.append(chunk)
        if len(chunks) == 2:
            reply = await engine.embeddings.create(model=BERT, input="a fox")
            same((reply.model, reason_of(chunks)), (BERT, None))
    same(reason_of(chunks), "length")


async def case_requests_to_one_model_run_at_the_same_time(engine):
    fields = ({"max_tokens": 60}, {"max_tokens": 4}, {"max_tokens": 12, "temperature": 0.9})
    alone, done = [], []
    for each in fields:
        text = await answer(engine, seed=3, **each)
        alone.append(text)

    async def finished(number):
        text = await answer(engine, seed=3, **fields[number])
        done.append(number)
        return text

    same(await asyncio.gather(*(finished(number) for number in range(3))), alone)
    same(done[-1], 0)  # the first request is the longest, and none waits for it


async def case_choices_of_a_stream(engine):
    texts, reasons = ["", "", ""], [None, None, None]
    async for chunk in await ask(engine, stream=True, n=3, seed=5, temperature=0.9):
        for choice in chunk.choices:
            same(reasons[choice.index], None)
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason
    same(reasons, ["length"] * 3)
    for index in range(3):
        same(texts[index], await answer(engine, seed=5 + index, temperature=0.9))


async def case_count_tokens(engine):
    reply = await ask(engine)
    same(await engine.count_tokens(FOX, STORY), reply.usage.prompt_tokens)


async def case_interrupt(engine):
    stream = await ask(engine, stream=True, max_tokens=900)
    chunks = []
    async for chunk in stream:
        chunks.append(chunk)
        if len(chunks) == 3:
            engine.interrupt_generate()
    same(reason_of(chunks), "abort")
    assert len(chunks) < 100, len(chunks)
    same((await ask(engine)).usage.completion_tokens, 8)


async def case_abort_of_one_request(engine):
    controller = AbortController()
    aborted = asyncio.create_task(ask(engine, max_tokens=900, signal=controller.signal))
    waiting = asyncio.create_task(answer(engine))
    await ask(engine, model=TWIN, max_tokens=1)  # the first request is at the model by now
    controller.abort("enough")
    same(str(await error_of(aborted, errors.AbortError)), "enough")
    assert len(await waiting) > 10
    await error_of(ask(engine, signal=controller.signal), errors.AbortError)


async def case_abort_of_one_stream(engine):
    controller = AbortController()
    stream = await ask(engine, stream=True, max_tokens=900, signal=controller.signal)
    waiting = asyncio.create_task(answer(engine))
    n_chunks = 0
    try:
        async for _chunk in stream:
            n_chunks += 1
            if n_chunks == 3:
                controller.abort()
    except errors.AbortError:
        n_chunks += 100
    same(n_chunks, 103)
    assert len(await waiting) > 10


async def case_dropped_stream_frees_the_model(engine):
    await drop_a_stream(engine)
    gc.collect()  # MicroPython finds what was dropped only then
    same((await ask(engine)).usage.completion_tokens, 8)


async def drop_a_stream(engine):
    async for _chunk in await ask(engine, stream=True, max_tokens=900):
        break


async def case_closed_stream_frees_the_model(engine):
    async with await ask(engine, stream=True, max_tokens=900) as stream:
        async for _chunk in stream:
            break
    same((await ask(engine)).usage.completion_tokens, 8)


async def case_message_statistics_and_reset(engine):
    text = await answer(engine)
    same(await engine.get_message(STORY), text)
    statistics = await engine.runtime_stats_text(STORY)
    assert "prefill: " in statistics and "decoding: " in statistics, statistics
    await engine.reset_chat(False, STORY)
    same(await engine.get_message(STORY), "")


async def case_forward_tokens_and_sample(engine):
    await engine.reset_chat(False, TWIN)
    first = await engine.forward_tokens_and_sample([1, 2, 3], True, TWIN)
    second = await engine.forward_tokens_and_sample([first], False, TWIN)
    assert 0 <= first < 4096 and 0 <= second < 4096, (first, second)
    await engine.reset_chat(False, TWIN)


async def case_gpu(engine):
    same(type(await engine.get_gpu_vendor()), str)
    assert await engine.get_max_storage_buffer_binding_size() >= 2**27


async def case_gpu_memory_of_all_models(engine):
    memory = await engine.get_gpu_memory()
    assert memory.n_buffers > 60 and memory.nbytes > 8_000_000, memory


async def case_profile_of_kernels(engine):
    profile = await engine.profile_kernels(TWIN, n_tokens=8)
    same((profile.model, profile.n_tokens), (TWIN, 8))
    for phase, position, n_tokens in ((profile.prefill, 0, 8), (profile.decode, 8, 1)):
        same((phase.position, phase.n_tokens), (position, n_tokens))
        same(len(phase.dispatches), sum(kernel["count"] for kernel in phase.kernels))
        assert all(kernel.seconds > 0 for kernel in phase.kernels), profile
    await error_of(engine.profile_kernels(TWIN, 0), errors.RangeError, "n_tokens is 0")
    await error_of(engine.profile_kernels(BERT), errors.IncorrectPipelineLoadedError, BERT)


async def case_bad_requests(engine):
    error = await error_of(ask(engine, temperature=-1), errors.NonNegativeError)
    assert "temperature" in str(error) and "-1" in str(error), error
    await error_of(ask(engine, top_p=5, stream=True), errors.RangeError, "top_p")
    two = [{"role": "system", "content": "x"}, {"role": "system", "content": "x"}]
    await error_of(ask(engine, messages=FOX + two), errors.SystemMessageOrderError)
    form = {"type": "json_object", "schema": '{"type": "animal"}'}
    await error_of(ask(engine, response_format=form), errors.InvalidResponseFormatError)
    same((await ask(engine)).usage.completion_tokens, 8)


async def case_full_context(engine):
    for stream in (False, True):
        request = ask(engine, messages=LONG, stream=stream)
        await error_of(read_if(stream, request), errors.ContextWindowSizeExceededError, "1024")
    same((await ask(engine)).usage.completion_tokens, 8)


async def read_if(stream, request):
    reply = await request
    return await collect(reply) if stream else reply


async def case_unload(engine):
    running = asyncio.create_task(ask(engine, max_tokens=900))
    await ask(engine, model=TWIN, max_tokens=1)  # which begins and ends meanwhile
    await engine.unload()
    await error_of(running, errors.ModelNotLoadedError)
    assert not engine.model_id, engine.model_id
    await error_of(ask(engine, model=None), errors.ModelNotLoadedError)


async def case_abort_of_a_load(engine):
    controller = AbortController()
    engine.set_app_config(OTHER_APP_CONFIG)
    engine.set_init_progress_callback(lambda report: controller.abort("not this one"))
    loading = engine.reload("renamed", signal=controller.signal)
    same(str(await error_of(loading, errors.AbortError)), "not this one")
    engine.set_init_progress_callback(None)
    await error_of(ask(engine, model=None), errors.ModelNotLoadedError)


async def case_another_app_config(engine):
    await engine.unload()  # WebLLM's client keeps the ids of what it had before a failed load
    engine.set_app_config(OTHER_APP_CONFIG)
    await error_of(engine.reload(STORY), errors.ModelNotFoundError)
    assert not engine.model_id, engine.model_id
    await error_of(engine.reload("damaged"), errors.IntegrityError, "mlc-chat-config.json")
    await engine.reload("renamed")
    same(list(engine.model_id), ["renamed"])
    reply = await engine.embeddings.create(input="a fox")
    same(reply.model, "renamed")
    assert abs(length_of(reply.data[0].embedding) - 1) > 0.1, reply  # as its record says


async def case_fields_of_errors(engine):
    engine.set_app_config(OTHER_APP_CONFIG)
    error = await error_of(engine.reload("damaged"), errors.IntegrityError)
    same(error.expected, WRONG_HASH)
    assert error.url.endswith("/mlc-chat-config.json"), error.url
    assert error.actual.startswith("sha256-"), error.actual


async def run(name, engine):
    """Run a case on an engine."""
    if name not in OTHER_MODELS:
        await load(engine)
    await globals()[f"case_{name}"](engine)
