"""MLCEngine in a worker with the embedded model: answers, broken files, interruption, lost GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engine_worker import EngineWorker

# Defined once in the worker; the tests' functions import it from there.
HELPERS = '''
import sys
import types
import json

import pywebllm_worker

from py_engine import config
from py_engine.browser_host import BrowserHost
from py_engine.engine import MLCEngine
from py_engine.storage.fetch_browser import FetchSource
from py_engine.storage.source import range_too_long

MODEL_ID = config.prebuilt_app_config.model_list[0].model_id
MESSAGES = [{"role": "user", "content": "Tell me a story about a dog."}]


class AlteredHost(BrowserHost):
    """Serves other files than the site for some paths: `alter[path](data)`."""

    def __init__(self):
        super().__init__()
        self.alter = {}
        self.device = None

    async def open_source(self, record, app_config):
        source = FetchSource(record.model, base_url=pywebllm_worker.siteUrl)
        read_bytes, alter = source.read_bytes, self.alter

        async def altered(path, on_bytes=None):
            if alter.get(path) == "missing":
                path = "no-such-file"
            data = await read_bytes(path, on_bytes)
            return alter[path](data) if path in alter else data

        async def altered_range(path, begin, end, on_bytes=None):
            data = await altered(path)
            if data.byteLength < end:
                raise range_too_long(source.url + path, begin, end, data.byteLength)
            return data.slice(begin, end)

        source.read_bytes, source.read_range = altered, altered_range
        return source

    async def request_device(self, required_features, memory_limit=None):
        self.device = await super().request_device(required_features, memory_limit)
        return self.device


host = AlteredHost()
engine = MLCEngine(host=host)


def edited(change):
    """Return a function that changes a JSON file's object."""

    def alter(data):
        import js

        fields = json.loads(js.TextDecoder.new().decode(data))
        change(fields)
        return js.TextEncoder.new().encode(json.dumps(fields)).buffer

    return alter


async def loaded():
    """Return the engine with the embedded model loaded from its own files."""
    from py_engine.errors import ModelNotLoadedError

    host.alter = {}
    try:
        await engine.get_message()
    except ModelNotLoadedError:
        await engine.reload(MODEL_ID)
    return engine


async def failure(awaitable):
    """Return the class and text of the error of an awaitable."""
    try:
        await awaitable
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


helpers = types.ModuleType("engine_helpers")
helpers.__dict__.update({k: v for k, v in globals().items() if not k.startswith("__")})
sys.modules["engine_helpers"] = helpers
'''


@pytest.fixture(scope="module")
def worker(engine_worker: EngineWorker) -> Iterator[EngineWorker]:
    engine_worker.run(HELPERS)
    yield engine_worker
    engine_worker.run("from engine_helpers import engine\nawait engine.unload()")


def test_stream_and_response_give_the_same_answer(worker: EngineWorker) -> None:
    async def answers() -> dict[str, Any]:
        from engine_helpers import MESSAGES, loaded

        engine = await loaded()
        options = {"messages": MESSAGES, "temperature": 0, "max_tokens": 24}
        response = await engine.chat.completions.create(**options)
        stream = await engine.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk.to_dict() async for chunk in stream]
        return {"response": response.to_dict(), "chunks": chunks}

    found = worker.run(answers)
    choice = found["response"]["choices"][0]
    chunks = found["chunks"]
    text = "".join(c["delta"].get("content", "") for k in chunks for c in k["choices"])
    assert text == choice["message"]["content"]
    assert len(text.split()) > 5
    assert chunks[-2]["choices"][0]["finish_reason"] == choice["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 24


def test_seed_repeats_an_answer(worker: EngineWorker) -> None:
    async def answers() -> list[str]:
        from engine_helpers import MESSAGES, loaded

        engine = await loaded()
        texts = []
        for seed in (1, 1, 2):
            response = await engine.chat.completions.create(
                messages=MESSAGES, seed=seed, temperature=1, max_tokens=16
            )
            texts.append(response.choices[0].message.content)
        return texts

    first, again, other = worker.run(answers)
    assert first == again != other


def test_interrupt_reaches_a_running_answer(worker: EngineWorker) -> None:
    async def interrupted() -> dict[str, Any]:
        import asyncio

        from engine_helpers import MESSAGES, loaded

        engine = await loaded()

        async def interrupt_later() -> None:
            for _ in range(5):
                await asyncio.sleep(0.05)
            engine.interrupt_generate()

        task = asyncio.ensure_future(interrupt_later())
        response = await engine.chat.completions.create(messages=MESSAGES, max_tokens=500)
        await task
        return response.to_dict()

    found = worker.run(interrupted)
    assert found["choices"][0]["finish_reason"] == "abort"
    assert 0 < found["usage"]["completion_tokens"] < 400


def test_broken_files_are_named_and_the_next_load_works(worker: EngineWorker) -> None:
    async def broken() -> dict[str, Any]:
        from engine_helpers import MESSAGES, MODEL_ID, edited, engine, failure, host, loaded

        shard, index, config = "params_shard_0.bin", "tensor-cache.json", "mlc-chat-config.json"

        def transpose(fields: Any) -> None:
            fields["records"][0]["records"][0]["shape"].reverse()

        def drop(fields: Any) -> None:
            del fields["records"][0]["records"][0]

        cases = {
            "missing file": {shard: "missing"},
            "truncated shard": {shard: lambda data: data.slice(0, data.byteLength - 100)},
            "wrong shape": {index: edited(transpose)},
            "missing tensor": {index: edited(drop)},
            "bad JSON": {config: lambda data: data.slice(0, 100)},
            "bad tokenizer": {"tokenizer.json": edited(lambda f: f["model"].pop("vocab"))},
            "unknown architecture": {config: edited(lambda f: f.update(model_type="perceptron"))},
            "unknown quantization": {config: edited(lambda f: f.update(quantization="q1f1"))},
        }
        found = {}
        for case, host.alter in cases.items():
            found[case] = await failure(engine.reload(MODEL_ID))
        unloaded = await failure(engine.chat_completion({"messages": MESSAGES}))
        response = await (await loaded()).chat_completion({"messages": MESSAGES, "max_tokens": 4})
        return {"found": found, "unloaded": unloaded[0], "tokens": response.usage.completion_tokens}

    result = worker.run(broken)
    expected = {
        "missing file": ("MissingFileError", "no-such-file"),
        "truncated shard": ("TruncatedFileError", "params_shard_0.bin"),
        "wrong shape": ("TensorShapeError", "model."),
        "missing tensor": ("MissingTensorError", "model."),
        "bad JSON": ("ModelFileFormatError", "mlc-chat-config.json"),
        "bad tokenizer": ("ModelFileFormatError", "tokenizer.json"),
        "unknown architecture": ("UnknownArchitectureError", "perceptron"),
        "unknown quantization": ("UnknownQuantizationError", "q1f1"),
    }
    for case, (error, named) in expected.items():
        assert result["found"][case][0] == error, result["found"][case]
        assert named in result["found"][case][1]
    assert (result["unloaded"], result["tokens"]) == ("ModelNotLoadedError", 4)


def test_lost_device_fails_requests_and_a_reload_recovers(worker: EngineWorker) -> None:
    async def lose() -> dict[str, Any]:
        import asyncio

        from engine_helpers import MESSAGES, failure, host, loaded

        engine = await loaded()
        running = asyncio.ensure_future(failure(engine.chat_completion({"messages": MESSAGES})))
        waiting = asyncio.ensure_future(failure(engine.chat_completion({"messages": MESSAGES})))
        await asyncio.sleep(0.2)
        host.device.handle.destroy()
        errors = [(await running)[0], (await waiting)[0]]
        afterwards = await failure(engine.chat_completion({"messages": MESSAGES}))
        response = await (await loaded()).chat_completion({"messages": MESSAGES, "max_tokens": 4})
        return {
            "errors": errors,
            "afterwards": afterwards[0],
            "tokens": response.usage.completion_tokens,
        }

    found = worker.run(lose)
    assert found["errors"] == ["DeviceLostError", "DeviceLostError"]
    # Reads of a lost device may fail before the browser tells of its loss, which frees the model.
    assert found["afterwards"] in ("ModelNotLoadedError", "DeviceLostError")
    assert found["tokens"] == 4


def test_what_is_compiled_stays_until_the_device_is_lost(worker: EngineWorker) -> None:
    async def pipelines_of_loads() -> list[int]:
        from engine_helpers import MODEL_ID, host, loaded
        from pyodide.code import run_js

        counting = run_js("""(() => {
          const device = GPUDevice.prototype, make = device.createComputePipelineAsync;
          const counting = { made: 0, end() { device.createComputePipelineAsync = make; } };
          device.createComputePipelineAsync = function (descriptor) {
            counting.made++;
            return make.call(this, descriptor);
          };
          return counting;
        })()""")
        engine = await loaded()
        made = []
        for loses_device in (True, False):
            if loses_device:
                host.device.handle.destroy()
                await host.device.wait_lost()
            else:
                await engine.unload()
            counting.made = 0
            await engine.reload(MODEL_ID)
            made.append(counting.made)
        counting.end()
        return made

    first, second = worker.run(pipelines_of_loads)
    assert first > 10
    assert second == 0


HOLD_KERNELS = """(() => {
  // Only what weights need compiles before `go`.
  const device = GPUDevice.prototype, make = device.createComputePipelineAsync;
  const gate = { held: 0 };
  const opened = new Promise((resolve) => { gate.go = resolve; });
  device.createComputePipelineAsync = async function (descriptor) {
    if (!descriptor.label.startsWith('f16 to')) { gate.held++; await opened; }
    return make.call(this, descriptor);
  };
  gate.end = () => { gate.go(); device.createComputePipelineAsync = make; };
  return gate;
})()"""


def test_a_model_is_loaded_before_its_kernels_and_answers_after_them(worker: EngineWorker) -> None:
    async def ask_early(hold_kernels: str) -> list[Any]:
        import asyncio

        from engine_helpers import MESSAGES, MODEL_ID, host, loaded
        from pyodide.code import run_js

        engine = await loaded()
        request = {"messages": MESSAGES, "max_tokens": 4, "temperature": 0}
        before = await engine.chat_completion(request)
        host.device.handle.destroy()
        await host.device.wait_lost()
        texts: list[str] = []
        engine.set_init_progress_callback(lambda report: texts.append(report.text))
        gate = run_js(hold_kernels)
        try:
            await asyncio.wait_for(engine.reload(MODEL_ID), 60)
            held, last = gate.held, texts[-1]
            n_texts = len(texts)
            cancelled = asyncio.ensure_future(engine.chat_completion(request))
            await asyncio.wait([cancelled], timeout=0.2)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            answering = asyncio.ensure_future(engine.chat_completion(request))
            await asyncio.wait([answering], timeout=0.2)
            was_waiting = cancelled.cancelled() and not answering.done()
        finally:
            gate.end()
        after = await answering
        contents = [each.choices[0].message.content for each in (before, after)]
        return [held, last, was_waiting, len(texts) - n_texts, *contents]

    held, last, was_waiting, n_later, before, after = worker.run(
        ask_early, hold_kernels=HOLD_KERNELS
    )
    assert held > 10 and was_waiting
    assert last.startswith("Finish loading") and n_later == 0
    assert before == after


def test_a_request_that_waits_for_kernels_ends_with_its_model(worker: EngineWorker) -> None:
    async def lose_early(hold_kernels: str) -> list[Any]:
        import asyncio

        from engine_helpers import MESSAGES, MODEL_ID, failure, host, loaded
        from pyodide.code import run_js

        engine = await loaded()
        request = {"messages": MESSAGES, "max_tokens": 4, "temperature": 0}

        async def lose() -> None:
            host.device.handle.destroy()
            await host.device.wait_lost()

        await lose()
        errors = []
        for end in (engine.unload, lose):
            gate = run_js(hold_kernels)
            try:
                await engine.reload(MODEL_ID)
                answering = asyncio.ensure_future(failure(engine.chat_completion(request)))
                await asyncio.wait([answering], timeout=0.2)
                await end()
                errors.append((await asyncio.wait_for(answering, 10))[0])
            finally:
                gate.end()
        response = await (await loaded()).chat_completion(request)
        return [*errors, response.usage.completion_tokens]

    *errors, n_tokens = worker.run(lose_early, hold_kernels=HOLD_KERNELS)
    assert errors == ["ModelNotLoadedError", "DeviceLostError"]
    assert n_tokens == 4


def test_a_profile_of_the_kernels_and_the_next_answer(worker: EngineWorker) -> None:
    async def profile() -> dict[str, Any]:
        from engine_helpers import MESSAGES, loaded

        engine = await loaded()

        async def answer():
            reply = await engine.chat.completions.create(
                messages=MESSAGES, max_tokens=8, temperature=0
            )
            return reply.choices[0].message.content

        before, memory = await answer(), (await engine.get_gpu_memory()).to_dict()
        found = (await engine.profile_kernels(n_tokens=40)).to_dict()
        after = (await engine.get_gpu_memory()).to_dict()
        return {
            "profile": found,
            "answers": [before, await answer()],
            "memory": [memory, after],
        }

    found = worker.run(profile)
    assert found["answers"][0] == found["answers"][1]
    assert found["memory"][0] == found["memory"][1]
    profile = found["profile"]
    products = {"qkv", "output", "gate_up", "down"}
    others = {"prefill": {"norm", "rope"}, "decode": {"lm_head", "sample"}}
    seconds = {}
    for name, count in (("prefill", 1 + 8 * 8), ("decode", 43)):
        phase = profile[name]
        kernels = {kernel["kernel"]: kernel for kernel in phase["kernels"]}
        assert kernels.keys() == products | {"embed", "attention"} | others[name]
        assert len(phase["dispatches"]) == sum(kernel["count"] for kernel in phase["kernels"])
        assert len(phase["dispatches"]) == count
        for label, kernel in kernels.items():
            assert kernel["seconds"] > 0
            # What appends keys and values reads activations alone.
            assert (kernel["bandwidth_fraction"] > 0) is (label != "rope"), kernel
        for label in products | {"attention"}:
            assert kernels[label]["arithmetic_fraction"] > 0, kernels[label]
        total = sum(kernel["count"] * kernel["seconds"] for kernel in kernels.values())
        assert 0.1 < total / phase["seconds"] < 10
        seconds |= {(name, label): kernel["seconds"] for label, kernel in kernels.items()}
    assert seconds["decode", "lm_head"] > seconds["decode", "output"]
    # 40 tokens, where a step has one.
    assert seconds["prefill", "gate_up"] > 2 * seconds["decode", "gate_up"]


def test_unloading_frees_every_buffer_and_a_limit_refuses_before_the_download(
    worker: EngineWorker,
) -> None:
    async def memory() -> dict[str, Any]:
        from engine_helpers import MODEL_ID, config, engine, failure, host, loaded

        await loaded()
        await engine.reload(MODEL_ID)
        device, told = host.device, (await engine.get_gpu_memory()).to_dict()
        found = {"loaded": vars(device.memory), "told": told}
        await engine.unload()
        found["unloaded"] = vars(device.memory)
        asked = []

        def note(data):
            asked.append(1)
            return data

        host.alter = {f"params_shard_{i}.bin": note for i in range(9)}
        engine.set_app_config({"gpuMemoryLimitMB": 6})
        found["refused"] = await failure(engine.reload(MODEL_ID))
        found["left"], found["asked"] = vars(host.device.memory), len(asked)
        engine.set_app_config({"gpuMemoryLimitMB": 60})
        await engine.reload(MODEL_ID)
        found["limit"] = (await engine.get_gpu_memory()).limit_bytes
        engine.set_app_config(config.AppConfig())
        return found

    found = worker.run(memory)
    assert found["loaded"]["n_buffers"] > 20 and found["loaded"]["nbytes"] > 4_000_000
    assert found["told"] == found["loaded"] | {"limit_bytes": None}
    assert found["unloaded"] == found["left"] == {"n_buffers": 0, "nbytes": 0}
    name, text = found["refused"]
    assert name == "OutOfMemoryError"
    assert "for its weights" in text and "6.0 MB are free" in text
    assert found["asked"] == 0
    assert found["limit"] == 60_000_000


def test_second_model_beyond_the_limit_is_refused_with_both_names_before_the_download(
    worker: EngineWorker,
) -> None:
    async def refuse() -> dict[str, Any]:
        from engine_helpers import config, engine, failure, host

        record = config.prebuilt_app_config.model_list[0]
        records = [{"model": record.model, "model_id": name} for name in ("first", "second")]
        engine.set_app_config({"model_list": records})
        await engine.reload("first")
        one, asked = (await engine.get_gpu_memory()).nbytes, []

        def note(data):
            asked.append(1)
            return data

        host.alter = {f"params_shard_{i}.bin": note for i in range(9)}
        engine.set_app_config({"model_list": records, "gpuMemoryLimitMB": one * 1.5 / 1e6})
        found = {"refused": await failure(engine.reload(["first", "second"])), "asked": len(asked)}
        found["left"], found["models"] = vars(host.device.memory), engine.model_id
        engine.set_app_config({"model_list": records, "gpuMemoryLimitMB": one * 2.1 / 1e6})
        await engine.reload(["first", "second"])
        found["ratio"] = (await engine.get_gpu_memory()).nbytes / one
        engine.set_app_config(config.AppConfig())
        return found

    found = worker.run(refuse)
    name, text = found["refused"]
    assert name == "OutOfMemoryError"
    assert "(first " in text and ", second " in text and "Load fewer of them" in text
    assert (found["asked"], found["models"]) == (0, None)
    assert found["left"] == {"n_buffers": 0, "nbytes": 0}
    assert found["ratio"] == 2
