"""The part of the bench that runs inside the worker, next to the engine.

`bench.py` sends this file's source there. Counts and times of one decode step are differences of
two replies of different length, divided by the difference, so that prefill and set-up cancel out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import js
import pyodide_js
import pywebllm_bridge as bridge
from pyodide.ffi import JsProxy

from py_engine.chat_config import ChatConfig
from py_engine.generation import Generation, GenerationParams
from py_engine.gpu.adapter import request_device
from py_engine.gpu.clock import clock_of
from py_engine.gpu.rates import copy_bytes_per_s
from py_engine.gpu.types import Limits
from py_engine.gpu.webgpu import WebGPUDevice
from py_engine.grammar import GrammarSpec
from py_engine.grammar.backend_browser import BrowserGrammarCompiler
from py_engine.grammar.vocabulary import vocabulary_of
from py_engine.models.base import SamplingParams
from py_engine.models.loader import load_model
from py_engine.models.model_plan import plan_model
from py_engine.models.registry import decoder_spec
from py_engine.storage.fetch_browser import FetchSource
from py_engine.tokenizer import load_tokenizer
from py_engine.weights.checkpoint import Checkpoint, open_checkpoint

SHORT = 16
COPY_BYTES = 32 << 20

# A reply that has not ended after some hundred tokens.
BENCH_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["cat", "dog", "bird"]},
        },
        "required": ["name", "age", "kind"],
    },
    "minItems": 100,
}

Reader = Callable[[], dict[str, float]]
"""Returns figures, by the keys of the bench, of what happened since its meter was entered."""

Meter = Callable[[], AbstractContextManager[Reader]]


@contextmanager
def callbacks_run_by(wrapper: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Let `wrapper` run each callback of the event loop."""
    handle_class: Any = asyncio.Handle  # as Any: its method is replaced for a while
    run = handle_class._run
    handle_class._run = lambda handle: wrapper(partial(run, handle))
    try:
        yield
    finally:
        handle_class._run = run


@contextmanager
def timed_replays() -> Iterator[Callable[[], float]]:
    """Time the replays: recording a command buffer and handing it to the browser, in JavaScript."""
    device_class: Any = WebGPUDevice  # as Any: its method is replaced for a while
    submit_and_read = device_class.submit_and_read
    total = 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal total
        started = time.perf_counter()
        reading = submit_and_read(*arguments)
        total += time.perf_counter() - started
        return reading

    device_class.submit_and_read = timed
    try:
        yield lambda: total
    finally:
        device_class.submit_and_read = submit_and_read


@contextmanager
def cpu_times() -> Iterator[Reader]:
    """Time the replays, and the event loop's callbacks less the replays inside them."""
    total = 0.0

    def timed(run: Callable[[], None]) -> None:
        nonlocal total
        started = time.perf_counter()
        run()
        total += time.perf_counter() - started

    with timed_replays() as replays, callbacks_run_by(timed):
        yield lambda: {
            "python_ms_per_token": 1000 * (total - replays()),
            "submit_ms_per_token": 1000 * replays(),
        }


@contextmanager
def bridge_calls() -> Iterator[Reader]:
    """Count calls over the bridge, both ways.

    Those of JavaScript functions in Python code, `then` of every awaited promise and its call back,
    and the event loop's calls back.
    """
    calls = 0
    monitoring = vars(sys)["monitoring"]  # Python 3.12 and later, as the worker has it
    event, tool = monitoring.events.CALL, monitoring.PROFILER_ID
    thens = int(js.thenCalls)

    def on_call(code: Any, offset: int, function: Any, argument: Any) -> None:
        nonlocal calls
        calls += isinstance(function, JsProxy)

    def counted(run: Callable[[], None]) -> None:
        nonlocal calls
        calls += 1
        run()

    monitoring.use_tool_id(tool, "bench")
    monitoring.register_callback(tool, event, on_call)
    monitoring.set_events(tool, event)
    try:
        with callbacks_run_by(counted):
            yield lambda: {"bridge_calls_per_token": calls + 2 * (int(js.thenCalls) - thens)}
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)


@contextmanager
def replay_counts() -> Iterator[Reader]:
    """Count what the replay loop does."""
    names = ("dispatches", "submits", "readbacks")
    before = {name: int(getattr(bridge.counters, name)) for name in names}
    yield lambda: {
        f"{name}_per_token": int(getattr(bridge.counters, name)) - before[name] for name in names
    }


def weight_bytes_per_token(checkpoint: Checkpoint, config: ChatConfig) -> int:
    """Return the bytes of weights that one decode step reads."""
    # Of a table that is not the head only one row is read, too little to count.
    is_tied = decoder_spec(config).tied
    buffers = plan_model(checkpoint, config, Limits()).buffers
    return sum(n for name, n in buffers.items() if is_tied or not name.startswith("embedding."))


async def measure(model_url: str, long_prompt: str, runs: int, reply_tokens: int) -> str:
    """Load the model of `model_url` and measure it; return figures as JSON, the best of `runs`.

    Replies have `reply_tokens` tokens, more than `SHORT`.
    """
    started = time.perf_counter()
    heap = int(pyodide_js._module.HEAP8.length)
    device = await request_device()
    source = FetchSource(model_url)
    checkpoint = await open_checkpoint(source)
    config = ChatConfig.from_json(checkpoint.config_json)
    model = await load_model(device, checkpoint, config, lambda progress: None)
    load_heap = int(pyodide_js._module.HEAP8.length) - heap
    tokenizer = await load_tokenizer(source, config)
    load_s = time.perf_counter() - started
    prompt = tokenizer.encode(long_prompt)

    async def reply(prompt_tokens: int, max_tokens: int, **settings: Any) -> Generation:
        sampling = SamplingParams(temperature=0)
        params = GenerationParams(sampling, max_tokens=max_tokens, **settings)
        generation = Generation(model, tokenizer, prompt[:prompt_tokens], params)
        async for _ in generation.pieces():
            pass
        return generation

    async def per_token(meter: Meter) -> dict[str, float]:
        found = []
        for n_tokens in (SHORT, reply_tokens):
            with meter() as read:
                await reply(8, n_tokens)
                found.append(read())
        short, long = found
        return {name: (long[name] - short[name]) / (reply_tokens - SHORT) for name in short}

    async def grammar_costs() -> dict[str, float]:
        """Decode with a grammar and without, in turn; time the grammar's own parts."""
        vocabulary = vocabulary_of(tokenizer, model.vocab_size, frozenset())
        compiler = BrowserGrammarCompiler(vocabulary)
        await compiler.compile(GrammarSpec("json"))  # which fetches the library
        started = time.perf_counter()
        grammar = await compiler.compile(GrammarSpec("json_schema", json.dumps(BENCH_SCHEMA)))
        compile_s = time.perf_counter() - started
        free, held = [], []
        for _ in range(runs):
            free.append((await reply(8, reply_tokens)).statistics)
            held.append((await reply(8, reply_tokens, grammar=grammar)).statistics)
        latencies = [each.grammar_per_token_s for each in held]
        compiler.destroy()
        return {
            "grammar_compile_ms": compile_s * 1000,
            "grammar_ms_per_token": min(latencies) * 1000,
            "grammar_ratio": min(each.time_per_output_token_s for each in held)
            / min(each.time_per_output_token_s for each in free),
        }

    async def prediction_costs() -> dict[str, float]:
        """Decode with a prediction that is right and without, in turn."""
        tokens = tokenizer.encode((await reply(8, reply_tokens)).text)
        plain, predicted = [], []
        for _ in range(runs):
            plain.append((await reply(8, reply_tokens)).statistics)
            guided = await reply(8, reply_tokens, draft_tokens=7, prediction=tokens)
            predicted.append(guided.statistics)
        return {
            "prediction_ratio": min(each.time_per_output_token_s for each in predicted)
            / min(each.time_per_output_token_s for each in plain),
            "prediction_accepted": predicted[0].accepted_draft_tokens / reply_tokens,
        }

    await reply(len(prompt), SHORT)
    first = [(await reply(24, 1)).statistics for _ in range(runs)]
    prefill = [(await reply(len(prompt), 1)).statistics for _ in range(runs)]
    decode = [(await reply(8, reply_tokens)).statistics for _ in range(runs)]
    times = [await per_token(cpu_times) for _ in range(runs)]
    decode_tokens_per_s = max(statistics.decode_tokens_per_s for statistics in decode)
    weight_bytes = weight_bytes_per_token(checkpoint, config)
    bandwidth = await copy_bytes_per_s(device, clock_of(device), COPY_BYTES)
    figures = {
        "adapter": str(device.info),
        "load_s": load_s,
        "load_heap_bytes": load_heap,
        "ttft_s": min(statistics.prefill_s for statistics in first),
        "prompt_tokens": len(prompt),
        "prefill_tokens_per_s": max(statistics.prefill_tokens_per_s for statistics in prefill),
        "decode_tokens_per_s": decode_tokens_per_s,
        "layers": model.spec.n_layers,
        **await per_token(replay_counts),
        **await per_token(bridge_calls),
        **{name: min(each[name] for each in times) for name in times[0]},
        **await grammar_costs(),
        **await prediction_costs(),
        "weight_bytes_per_token": weight_bytes,
        "copy_bytes_per_s": bandwidth,
        "bandwidth_fraction": weight_bytes * decode_tokens_per_s / bandwidth,
    }
    model.destroy()
    device.destroy()
    return json.dumps(figures)
