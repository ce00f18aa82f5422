"""WebLLM's own JavaScript client under the names of our engines, for the cases of all engines.

Only names and objects are translated, so that what a case finds is what the client does.
"""

import json

import js
from pyodide.ffi import create_proxy
from pyscript.js_modules import webllm_client

from py_engine.api.objects import ApiObject
from py_engine.rpc.messages import error_from


class WebLlmEngine:
    """`client` is an engine of npm `@mlc-ai/web-llm`, as `WebWorkerMLCEngine` is."""

    def __init__(self, client):
        self._client = client
        self.chat = Endpoint(client.chat.completions)
        self.chat.completions = self.chat
        self.completions = Endpoint(client.completions)
        self.embeddings = Endpoint(client.embeddings)

    @property
    def model_id(self):
        return from_js(getattr(self._client, "modelId", None))

    def set_app_config(self, app_config):
        self._client.setAppConfig(to_js(app_config))

    def set_init_progress_callback(self, callback):
        listener = create_proxy(lambda report: callback(from_js(report)))
        self._client.setInitProgressCallback(listener)

    def interrupt_generate(self):
        self._client.interruptGenerate()

    async def reload(self, model_id, chat_opts=None):
        await call(self._client, "reload", to_js(model_id), to_js(chat_opts or {}))

    async def unload(self):
        await call(self._client, "unload")

    async def reset_chat(self, keep_stats=False, model_id=None):
        await call(self._client, "resetChat", keep_stats, model_id)

    async def get_message(self, model_id=None):
        return await call(self._client, "getMessage", model_id)

    async def runtime_stats_text(self, model_id=None):
        return await call(self._client, "runtimeStatsText", model_id)

    async def forward_tokens_and_sample(self, input_ids, is_prefill, model_id=None):
        arguments = to_js(input_ids), is_prefill, model_id
        return await call(self._client, "forwardTokensAndSample", *arguments)

    async def get_gpu_vendor(self):
        return await call(self._client, "getGPUVendor")

    async def get_max_storage_buffer_binding_size(self):
        return await call(self._client, "getMaxStorageBufferBindingSize")


class Endpoint:
    """`create(**request)` over an endpoint of the client."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    async def create(self, **request):
        result = await call(self._endpoint, "create", to_js(request))
        return Stream(result) if request.get("stream") else from_js(result)


class Stream:
    """Does what JavaScript's `for await` does: takes chunks, and returns the iterator if left."""

    def __init__(self, chunks):
        self._chunks = chunks

    def __aiter__(self):
        return self

    async def __anext__(self):
        result = await call(self._chunks, "next")
        if result.done:
            raise StopAsyncIteration
        return from_js(result.value)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_exc_info):
        await call(self._chunks, "return")

    def __del__(self):
        webllm_client.settle(self._chunks, "return")


async def call(target, method, *values):
    """Return what a method's promise becomes; raise the error that its rejection names."""
    outcome = await webllm_client.settle(target, method, *values)
    if hasattr(outcome, "reason"):
        raise error_from({"content": outcome.reason})
    return outcome.value


def to_js(value):
    return js.JSON.parse(json.dumps(value))


def from_js(value):
    text = js.JSON.stringify(value)
    if text is None:
        return None
    value = json.loads(text)
    return ApiObject(value) if isinstance(value, dict) else value


def web_worker(url):
    """Return a `WebWorkerMLCEngine` of the client over our worker."""
    worker = js.Worker.new(url, to_js({"type": "module"}))
    return WebLlmEngine(webllm_client.WebWorkerMLCEngine.new(worker))
