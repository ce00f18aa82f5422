"""`WebWorkerMLCEngine`: the engine's interface on the main thread, served by a worker.

Runs on CPython, Pyodide and MicroPython. It speaks WebLLM's messages (messages.py), so the worker
may as well run WebLLM's own `WebWorkerMLCEngineHandler`.
"""

import asyncio
import logging

from py_engine.abort import until_aborted
from py_engine.api.endpoints import Chat, Completions, Embeddings
from py_engine.api.objects import ApiObject, plain
from py_engine.errors import ConfigValueError, WorkerEngineModelNotLoadedError
from py_engine.rpc.channel import Channel
from py_engine.rpc.client_values import checked_config, given, plain_config
from py_engine.rpc.messages import INIT_PROGRESS
from py_engine.rpc.model_requests import ModelRequests
from py_engine.rpc.transport import Transport
from py_engine.storage.picked import local_address, picked_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from py_engine.config import AppConfig, MLCEngineConfig


class WebWorkerMLCEngine:
    """A client of MLCEngine with the same interface; the engine runs in `worker`.

    `worker` is a JavaScript `Worker` (or another Transport), or the URL of one to start, by default
    the site's own. `engine_config` is an MLCEngineConfig, or a dict with `app_config`,
    `init_progress_callback` and `log_level`, all optional.
    Errors raised in the worker arrive as the same class of py_engine.errors. When the worker dies,
    everything pending fails with WorkerFailedError; make a new worker and engine to go on.
    """

    def __init__(
        self,
        worker: "Any" = None,
        engine_config: "MLCEngineConfig | Mapping[str, Any] | None" = None,
    ) -> None:
        config = checked_config(engine_config)
        self.model_id: list[str] | None = None
        self.chat_opts: list[dict[str, Any]] | None = None
        self._app_config: dict[str, Any] | None = None
        self._loads = 0  # counts reloads and unloads, so that only the latest sets the state
        self._on_progress = config.get("init_progress_callback")
        self._channel = Channel(_transport_to(worker), self._on_event)
        self._requests = ModelRequests(self._channel)
        self.chat = Chat(self.chat_completion)
        self.completions = Completions(self.completion)
        self.embeddings = Embeddings(self.embedding)
        if config.get("app_config") is not None:
            self.set_app_config(config["app_config"])
        if config.get("log_level") is not None:
            self.set_log_level(config["log_level"])

    def set_init_progress_callback(self, callback: "Callable[[ApiObject], object] | None") -> None:
        """Call `callback(report)` while a model loads; `report` has progress, text, timeElapsed."""
        self._on_progress = callback

    def get_init_progress_callback(self) -> "Callable[[ApiObject], object] | None":
        """Return what `set_init_progress_callback` set."""
        return self._on_progress

    def set_app_config(self, app_config: "AppConfig | Mapping[str, Any]") -> None:
        """Replace the list of models that can be loaded, from the next `reload` on."""
        self._app_config = plain_config(app_config)
        self._channel.send("setAppConfig", self._app_config)

    def set_log_level(self, log_level: str) -> None:
        """Set the worker's level: TRACE, DEBUG, INFO, WARN, ERROR or SILENT."""
        self._channel.send("setLogLevel", log_level)

    async def register_local_files(self, name: str, files: "Any") -> str:
        """Make files that the user picked loadable, and return their address, `local:NAME`.

        `files` is a File, a FileSystemDirectoryHandle, or several Files (`input.files`). They are
        read where they lie, for as long as the worker lives; the same name again replaces them.
        """
        address = local_address(name)
        await self._channel.call("registerLocalFiles", {"name": name}, picked_entries(files))
        return address

    async def reload(
        self,
        model_id: "str | Sequence[str]",
        chat_opts: "Mapping[str, Any] | Sequence[Mapping[str, Any]] | None" = None,
        *,
        signal: "Any" = None,
    ) -> None:
        """Unload what is loaded and load one or several models.

        A model id is one of the records', or an address (`hf:owner/name`, a URL, `local:NAME`).
        Cancelling the call ends the download, and so does `signal`, an AbortController's, with
        AbortError; what has come is kept for the next time.
        """
        model_ids = [model_id] if isinstance(model_id, str) else list(model_id)
        options = plain(chat_opts)
        if options is not None and not isinstance(options, list):
            options = [options]
        await until_aborted(self._reload(model_ids, options), signal)

    async def _reload(self, model_ids: "list[str]", options: "list[Any] | None") -> None:
        self._loads += 1
        this_load = self._loads
        self.model_id = self.chat_opts = None
        try:
            content = given(modelId=model_ids, chatOpts=options, appConfig=self._app_config)
            await self._channel.call("reload", content)
        except asyncio.CancelledError:
            if this_load == self._loads and not self._channel.is_closed:
                self._channel.send("unload")  # WebLLM's way to end a load
            raise
        if this_load == self._loads:
            self.model_id, self.chat_opts = model_ids, options

    async def unload(self) -> None:
        """Free the loaded models; stops a `reload` that is under way."""
        self._loads += 1
        self.model_id = self.chat_opts = None
        await self._channel.call("unload")

    async def model_cache(
        self,
        action: str,
        model_id: "str | None" = None,
        app_config: "AppConfig | Mapping[str, Any] | None" = None,
    ) -> "Any":
        """Ask or change what is stored; the functions of `py_engine.model_cache` call it."""
        content = given(action=action, modelId=model_id, appConfig=plain_config(app_config))
        return await self._channel.call("modelCache", content)

    async def chat_completion(self, request: "Mapping[str, Any]") -> "Any":
        """Answer an OpenAI chat request; with `stream` true return a ChunkStream."""
        state = self._expected_state()
        return await self._requests.complete(
            "chatCompletion", "ChatCompletionRequest", request, state
        )

    async def completion(self, request: "Mapping[str, Any]") -> "Any":
        """Answer an OpenAI completion request; with `stream` true return a ChunkStream."""
        state = self._expected_state()
        return await self._requests.complete("completion", "CompletionCreateParams", request, state)

    async def embedding(self, request: "Mapping[str, Any]") -> ApiObject:
        """Answer an OpenAI embedding request."""
        return await self._requests.embed(request, self._expected_state())

    async def count_tokens(
        self,
        messages: "Sequence[Mapping[str, Any]]",
        model_id: "str | None" = None,
        tools: "Sequence[Mapping[str, Any]] | None" = None,
    ) -> int:
        """Return how many tokens the prompt of a chat request has."""
        expected = self._expected_state() if self.model_id else None
        content = given(messages=messages, modelId=model_id, tools=tools, expected=expected)
        return int(await self._channel.call("countTokens", content))

    def interrupt_generate(self) -> None:
        """Stop every generation that is running; each ends with finish_reason "abort"."""
        self._channel.send("interruptGenerate")

    async def reset_chat(self, keep_stats: bool = False, model_id: "str | None" = None) -> None:
        """Forget the conversation, and the statistics unless `keep_stats`."""
        await self._channel.call("resetChat", given(keepStats=keep_stats, modelId=model_id))

    async def get_message(self, model_id: "str | None" = None) -> str:
        """Return the text that the model generated last."""
        return str(await self._channel.call("getMessage", given(modelId=model_id)))

    async def runtime_stats_text(self, model_id: "str | None" = None) -> str:
        """Return the speed of prefill and decode as text."""
        return str(await self._channel.call("runtimeStatsText", given(modelId=model_id)))

    async def forward_tokens_and_sample(
        self, input_ids: "Sequence[int]", is_prefill: bool, model_id: "str | None" = None
    ) -> int:
        """Append token ids as they are and return one sampled token id."""
        content = given(inputIds=list(input_ids), isPrefill=is_prefill, modelId=model_id)
        return int(await self._channel.call("forwardTokensAndSample", content))

    async def get_max_storage_buffer_binding_size(self) -> int:
        """Return the adapter's limit in bytes."""
        return int(await self._channel.call("getMaxStorageBufferBindingSize"))

    async def get_gpu_vendor(self) -> str:
        """Return the adapter's vendor."""
        return str(await self._channel.call("getGPUVendor"))

    async def get_gpu_memory(self) -> ApiObject:
        """Return what the loaded models take on the GPU: `n_buffers`, `nbytes`, `limit_bytes`."""
        # WebLLM's handler only tells that it does not know a kind where there is a content.
        return ApiObject(await self._channel.call("getGPUMemory", {}))

    async def profile_kernels(
        self, model_id: "str | None" = None, n_tokens: int = 128
    ) -> ApiObject:
        """Return the time of each kernel; see `MLCEngine.profile_kernels`."""
        content = given(modelId=model_id, nTokens=n_tokens)
        return ApiObject(await self._channel.call("profileKernels", content))

    async def list_resumable_sessions(self) -> "list[ApiObject]":
        """Return the generations that `resume_chat_completion` can go on with."""
        return [ApiObject(item) for item in await self._channel.call("listResumableSessions")]

    async def resume_chat_completion(
        self, session_id: str, continue_generation: bool = False, stream: bool = False
    ) -> "Any":
        """Recover a generation that was cut off; streams what follows if both flags are set."""
        state = self._expected_state() if self.model_id else {}
        return await self._requests.resume(session_id, continue_generation, stream, state)

    async def delete_resumable_session(self, session_id: str) -> None:
        """Forget what is stored of a generation."""
        await self._channel.call("deleteResumableSession", {"sessionId": session_id})

    def custom_request(self, name: str, message: "Any" = None) -> None:
        """Send a message to a worker whose handler overrides `custom_request`; no reply."""
        self._channel.send("customRequest", given(requestName=name, requestMessage=message))

    def terminate(self) -> None:
        """End the worker; everything pending fails with WorkerFailedError."""
        self.model_id = self.chat_opts = None
        self._channel.close("The worker was ended by `engine.terminate()`; make a new one.")

    def _expected_state(self) -> "dict[str, Any]":
        """Return what the worker should have loaded, sent along so that it can catch up."""
        if self.model_id is None:
            raise WorkerEngineModelNotLoadedError(
                f"{type(self).__name__}: no model is loaded; call `await engine.reload(model_id)` "
                "and wait for it before the first request."
            )
        return given(modelId=self.model_id, chatOpts=self.chat_opts, appConfig=self._app_config)

    def _on_event(self, message: "dict[str, Any]") -> None:
        if message.get("kind") != INIT_PROGRESS or self._on_progress is None:
            return
        try:
            self._on_progress(ApiObject(message["content"]))
        except Exception as error:  # a mistake in the callback must not stop the loading
            logging.error("init_progress_callback failed: %r", error)


async def create_web_worker_mlc_engine(
    worker: "Any" = None,
    model_id: "str | Sequence[str]" = (),
    engine_config: "MLCEngineConfig | Mapping[str, Any] | None" = None,
    chat_opts: "Mapping[str, Any] | Sequence[Mapping[str, Any]] | None" = None,
) -> WebWorkerMLCEngine:
    """Return a WebWorkerMLCEngine that has loaded `model_id`, one or several.

    `worker` is as for WebWorkerMLCEngine: without one, the site's own is started.
    """
    if not model_id:
        raise ConfigValueError(
            "model_id is missing: name the model to load, as in "
            '`create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")`.'
        )
    engine = WebWorkerMLCEngine(worker, engine_config)
    await engine.reload(model_id, chat_opts)
    return engine


async def reload_or_terminate(
    engine: WebWorkerMLCEngine, model_id: "str | Sequence[str]", chat_opts: "Any"
) -> None:
    """Load, and end the client that nobody has seen yet when that fails or is cancelled."""
    try:
        await engine.reload(model_id, chat_opts)
    except BaseException:
        engine.terminate()
        raise


def _transport_to(worker: "Any") -> Transport:
    if isinstance(worker, Transport):
        return worker
    from py_engine.rpc.transport_browser import WorkerTransport, create_worker

    if worker is None or isinstance(worker, str):
        worker = create_worker(worker)
    return WorkerTransport(worker)
