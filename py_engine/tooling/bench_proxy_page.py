"""The part of the bench that runs on a page: what a message costs the proxy.

`bench_messages.py` serves this source; one for MicroPython and Pyodide. `measureProxy(chunks)` and
`measureWaits(seconds)` resolve to JSON.
"""

import asyncio
import json

import js
from pyscript.ffi import create_proxy

from py_engine.rpc.client import WebWorkerMLCEngine, create_web_worker_mlc_engine
from py_engine.rpc.transport import Transport
from py_engine.rpc.transport_browser import create_worker, from_js_message, to_js_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WORKER = "./worker/web_worker.mjs"
INSTANT_WORKER = "./bench/bench_proxy_worker.py"
BATCH = 20  # the browser's clock is too coarse for one chunk
CHUNK = {
    "id": "chatcmpl-0",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "some-model",
    "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}],
}
MESSAGES = [{"role": "user", "content": "Tell me a story."}]


class InstantTransport(Transport):
    """Answers within `post`, so that only the proxy's own work is left."""

    def connect(self, on_message: "Any", on_failure: "Any", on_restart: "Any" = None) -> None:
        self._on_message = on_message
        self._reply = js.JSON.parse(json.dumps({"kind": "return", "content": CHUNK}))

    def post(self, message: "dict[str, Any]") -> None:
        self._reply.uuid = to_js_message(message).uuid
        answer = from_js_message(self._reply)
        assert answer is not None
        self._on_message(answer)

    def new_uuid(self) -> str:
        return str(js.crypto.randomUUID())


async def chunk_times(engine: "WebWorkerMLCEngine", n_chunks: int) -> "list[float]":
    """Return the mean milliseconds per chunk of each batch of a stream."""
    stream = await engine.chat_completion({"messages": MESSAGES, "stream": True, "chunk": CHUNK})
    times = []
    for _ in range(n_chunks // BATCH):
        began = js.performance.now()
        for _ in range(BATCH):
            chunk = await stream.__anext__()
            assert chunk.choices[0].delta.content
        times.append((js.performance.now() - began) / BATCH)
    return times


async def measure_proxy(n_chunks: int) -> str:
    """Return the times of a chunk in the proxy alone, and to a worker that has it ready."""
    alone = WebWorkerMLCEngine(InstantTransport())
    alone.model_id = ["some-model"]
    worker = create_worker(WORKER, INSTANT_WORKER)
    engine = await create_web_worker_mlc_engine(worker, "some-model")
    times: dict[str, list[float]] = {"proxy": [], "round_trip": []}
    for _ in range(4):  # in turns
        times["proxy"] += await chunk_times(alone, n_chunks // 4)
        times["round_trip"] += await chunk_times(engine, n_chunks // 4)
    engine.terminate()
    return json.dumps(times)


async def generate(engine: "WebWorkerMLCEngine", until: float) -> int:
    """Stream replies one after another; returns the number of chunks."""
    n_chunks = 0
    while js.performance.now() < until:
        stream = await engine.chat.completions.create(
            messages=MESSAGES, stream=True, max_tokens=60, ignore_eos=True
        )
        async for _ in stream:
            n_chunks += 1
    return n_chunks


async def measure_waits(model: str, seconds: float) -> str:
    """Return how long messages waited for answers while three clients had replies streamed."""
    engine = await create_web_worker_mlc_engine(create_worker(WORKER), model)
    until = js.performance.now() + 1000 * seconds
    clients = [asyncio.create_task(generate(engine, until)) for _ in range(3)]
    waits = []
    while js.performance.now() < until:
        await asyncio.sleep(0.05)
        began = js.performance.now()
        await engine.get_message()
        waits.append(js.performance.now() - began)
    n_chunks = 0
    for client in clients:  # MicroPython has no asynchronous comprehensions
        n_chunks += await client
    engine.terminate()
    return json.dumps({"waits": waits, "chunks": n_chunks})


js.measureProxy = create_proxy(measure_proxy)
js.measureWaits = create_proxy(measure_waits)
