"""`MLCEngine`: the loaded models and OpenAI's endpoints over them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from py_engine import config as configuration
from py_engine.abort import until_aborted
from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.completion import CompletionRequest
from py_engine.api.embedding import EmbeddingRequest
from py_engine.api.embedding_responses import embedding_response
from py_engine.api.endpoints import Chat, Completions, Embeddings
from py_engine.api.messages import checked_messages
from py_engine.api.objects import ApiObject, plain
from py_engine.cached_models import CachedModels
from py_engine.chat import chat_job
from py_engine.config import AppConfig, MLCEngineConfig
from py_engine.engine_config import app_config as checked_app_config
from py_engine.engine_config import engine_config as checked_config
from py_engine.errors import ModelNotLoadedError, SpecifiedModelNotFoundError
from py_engine.generation import LogitProcessor
from py_engine.host import EngineHost
from py_engine.loaded_model import LoadedModel
from py_engine.log_levels import log_from
from py_engine.model_set import ChatOpts, ModelSet, load_plan
from py_engine.progress import ProgressCallback
from py_engine.response_stream import ResponseStream
from py_engine.resumable.sessions import ResumableSessions
from py_engine.text_completion import completion_job

logger = logging.getLogger(__name__)


class MLCEngine:
    """Runs large language models on the GPU behind OpenAI's API.

    `engine.chat.completions.create(messages=[...])` answers, after `reload(model_id)`. Requests to
    one model wait for each other, those to different models do not. An error leaves the engine
    usable. `host` is the outside world, by default the browser's.
    """

    def __init__(
        self,
        engine_config: MLCEngineConfig | Mapping[str, Any] | None = None,
        *,
        host: EngineHost | None = None,
    ) -> None:
        config = checked_config(engine_config)
        self._app_config = config.app_config
        self._on_progress: ProgressCallback | None = config.init_progress_callback
        self._host = _browser_host() if host is None else host
        self._models = ModelSet(self._host)
        self._sessions = ResumableSessions(self._host, self._models)
        self._reported_fields: set[str] = set()
        self.chat = Chat(self.chat_completion)
        self.completions = Completions(self.completion)
        self.embeddings = Embeddings(self.embedding)
        self.set_log_level(config.log_level)
        self.set_logit_processor_registry(config.logit_processor_registry)

    @property
    def model_id(self) -> list[str] | None:
        """The ids of the loaded models in the order of loading; None when there is none."""
        return self._models.model_ids or None

    @property
    def app_config(self) -> AppConfig | None:
        """The list of models as it was set; None for the catalogue."""
        return self._app_config

    def set_app_config(self, app_config: AppConfig | Mapping[str, Any] | None) -> None:
        """Replace the list of models, from the next `reload` on; None for the catalogue."""
        self._app_config = None if app_config is None else checked_app_config(app_config)

    def set_init_progress_callback(self, callback: ProgressCallback | None) -> None:
        """Call `callback(report)` while models load; None for no calls."""
        self._on_progress = callback

    def get_init_progress_callback(self) -> ProgressCallback | None:
        """Return what `set_init_progress_callback` set."""
        return self._on_progress

    def set_log_level(self, log_level: str) -> None:
        """Log from this level on: TRACE, DEBUG, INFO, WARN, ERROR or SILENT."""
        log_from(log_level)

    async def register_local_files(self, name: str, files: Any) -> str:
        """Make files that the user picked loadable, and return their address, `local:NAME`.

        `files` is a JavaScript File, a FileSystemDirectoryHandle, or several Files. They are read
        where they lie; the same name again replaces them.
        Errors: ConfigurationFieldError for something else, MissingFileError for an empty folder.
        """
        return await self._host.register_local_files(name, files)

    async def reload(
        self,
        model_id: str | Sequence[str],
        chat_opts: ChatOpts | Sequence[ChatOpts] | None = None,
        *,
        signal: Any = None,
    ) -> None:
        """Unload everything, then load one model or several, one after another.

        A model id is one of the records', or an address (`hf:owner/name`, a URL, `local:NAME`).
        `chat_opts` overrides fields of the models' mlc-chat-config.json, one mapping for each
        model. When it fails, or the task that calls it is cancelled, nothing is loaded; what was
        downloaded is kept. A call of `unload` or `reload` meanwhile ends it early, without an
        error and with nothing loaded by it; `signal`, an AbortController's, with AbortError.
        Errors: ConfigurationError's, ModelFileError's and DeviceError's classes.
        """
        load = self._models.load(
            lambda: load_plan(
                self._app_config or configuration.prebuilt_app_config, model_id, chat_opts
            ),
            self.get_init_progress_callback,
        )
        await until_aborted(load, signal)

    async def unload(self) -> None:
        """Free all models, and end a `reload` under way; running requests fail."""
        await self._models.unload()

    async def model_cache(
        self,
        action: str,
        model_id: str | None = None,
        app_config: AppConfig | Mapping[str, Any] | None = None,
    ) -> Any:
        """Ask or change what is stored; the functions of `py_engine.model_cache` call it.

        Without an `app_config` for this engine's models. Errors: as `CachedModels.do`.
        """
        return await CachedModels(self._host).do(action, model_id, app_config or self._app_config)

    async def chat_completion(self, request: Mapping[str, Any]) -> ApiObject | ResponseStream:
        """Answer OpenAI's chat request; a ResponseStream where `stream` is true.

        Errors: RequestError's classes before any work; ModelNotLoadedError,
        SpecifiedModelNotFoundError, UnclearModelToUseError, IncorrectPipelineLoadedError;
        ContextWindowSizeExceededError; LogitProcessorError, ResponseFormatViolationError;
        DeviceLostError; ShaderCompilationError for kernels that were still compiling.
        """
        began = time.perf_counter()
        checked = ChatCompletionRequest.from_dict(request, takes_images=self._models.takes_images)
        self._report_unknown(checked.unknown_fields)
        model_id, model = self._models.select_language_model(checked.model, "ChatCompletionRequest")
        job = await chat_job(model, model_id, checked, began)
        return ResponseStream(job.chunks()) if checked.stream else await job.complete()

    async def completion(self, request: Mapping[str, Any]) -> ApiObject | ResponseStream:
        """Answer OpenAI's text completion request; a ResponseStream where `stream` is true.

        Special tokens in the prompt are parsed, none are added. Errors: as `chat_completion`.
        """
        began = time.perf_counter()
        checked = CompletionRequest.from_dict(request)
        self._report_unknown(checked.unknown_fields)
        model_id, model = self._models.select_language_model(
            checked.model, "CompletionCreateParams"
        )
        job = await completion_job(model, model_id, checked, began)
        return ResponseStream(job.chunks()) if checked.stream else await job.complete()

    async def embedding(self, request: Mapping[str, Any]) -> ApiObject:
        """Answer OpenAI's embedding request.

        Errors: RequestError's classes before any work; ModelNotLoadedError,
        SpecifiedModelNotFoundError, UnclearModelToUseError, EmbeddingUnsupportedModelError;
        EmbeddingExceedContextWindowSizeError; DeviceLostError; ShaderCompilationError as above.
        """
        checked = EmbeddingRequest.from_dict(request)
        self._report_unknown(checked.unknown_fields)
        model_id, model = self._models.select_embedding_model(
            checked.model, "EmbeddingCreateParams"
        )
        embeddings = await model.embed(checked)
        return embedding_response(
            model_id, embeddings.vectors, embeddings.statistics, checked.encoding_format
        )

    async def list_resumable_sessions(self) -> list[ApiObject]:
        """Return WebLLM's ResumeProbeResult of each resumable generation stored in this browser."""
        return await self._sessions.probes()

    async def resume_chat_completion(
        self, session_id: str, continue_generation: bool = False, stream: bool = False
    ) -> ApiObject | ResponseStream:
        """Return what is stored of a resumable generation, WebLLM's ResumeResult, or go on with it.

        `continue_generation` ends the reply first; with `stream` too the result is a
        ResponseStream of what comes after the stored text. Where it cannot go on, the result says
        why in `reason`. Errors: ConfigValueError, ResumableSessionNotFoundError,
        ResumableSessionActiveError; StorageError's classes; as `chat_completion` in going on.
        """
        return await self._sessions.resume(session_id, continue_generation, stream)

    async def delete_resumable_session(self, session_id: str) -> None:
        """Forget a resumable generation, if it is stored. Raises ResumableSessionActiveError."""
        await self._sessions.delete(session_id)

    async def count_tokens(
        self,
        messages: Sequence[Mapping[str, Any]],
        model_id: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Return how many tokens the prompt of a chat request has, the reply's header included.

        Errors: as `chat_completion`, for the messages.
        """
        renderer = self._select(model_id, "count_tokens").renderer
        prompt = renderer.render(checked_messages(plain(messages)), tools=plain(tools))
        return len(prompt.token_ids)

    def set_logit_processor_registry(self, registry: Mapping[str, LogitProcessor] | None) -> None:
        """Let processors change the logits of models, by model id; None removes all.

        They act from the next reply on, on models loaded later too.
        """
        self._models.set_logit_processors(registry or {})

    def interrupt_generate(self) -> None:
        """End every model's running reply, with finish_reason "abort", and its profiles."""
        self._models.interrupt()

    async def reset_chat(self, keep_stats: bool = False, model_id: str | None = None) -> None:
        """Forget the last reply, and the statistics unless `keep_stats`.

        Does nothing where no model is loaded. Raises UnclearModelToUseError.
        """
        try:
            self._models.select(model_id, "reset_chat")[1].reset(keep_stats=keep_stats)
        except (ModelNotLoadedError, SpecifiedModelNotFoundError) as error:
            logger.debug("%s", error)

    async def get_message(self, model_id: str | None = None) -> str:
        """Return the text of the reply at hand, else of the last one."""
        return self._select(model_id, "get_message").message

    async def runtime_stats_text(self, model_id: str | None = None) -> str:
        """Return the speeds since `reset_chat` as text; `usage` of a response has more."""
        return self._select(model_id, "runtime_stats_text").statistics.speeds_text()

    async def forward_tokens_and_sample(
        self, input_ids: Sequence[int], is_prefill: bool, model_id: str | None = None
    ) -> int:
        """Append token ids as they are, without a template, and return one sampled token id.

        The sequence begins with the first call after a chat completion or `reset_chat`.
        `is_prefill` is WebLLM's hint which kernels to use; it changes nothing here.
        """
        return await self._select(model_id, "forward_tokens_and_sample").forward(input_ids)

    async def get_max_storage_buffer_binding_size(self) -> int:
        """Return the largest buffer, in bytes, that the GPU can bind. Needs no model."""
        return (await self._models.any_device()).limits.max_storage_buffer_binding_size

    async def get_gpu_vendor(self) -> str:
        """Return the GPU's vendor, as the browser names it. Needs no model."""
        return (await self._models.any_device()).info.vendor

    async def get_gpu_memory(self) -> ApiObject:
        """Return what the loaded models take on the GPU: `n_buffers` and `nbytes`.

        `limit_bytes` is what they may take together, None where that is not known.
        """
        memory, limit = self._models.gpu_memory()
        return ApiObject({**vars(memory), "limit_bytes": limit})

    async def profile_kernels(self, model_id: str | None = None, n_tokens: int = 128) -> ApiObject:
        """Return the time of each kernel of a prompt's last prefill chunk and of the step after.

        The prompt has `n_tokens` tokens. `prefill` and `decode` have `kernels` with label, shape,
        count, seconds of a dispatch, and what they read and compute, also as fractions of the
        adapter's measured rates, and the `dispatches` in their order. A reply that is being
        generated ends first.
        Errors: as `count_tokens` for the model; ConfigValueError, RangeError; AbortError after
        `interrupt_generate`; those of the device.
        """
        selected, model = self._models.select_language_model(model_id, "profile_kernels")
        profile = await model.profile(n_tokens)
        return ApiObject({"model": selected, **profile.to_dict()})

    def _select(self, model_id: str | None, request_name: str) -> LoadedModel:
        return self._models.select_language_model(model_id, request_name)[1]

    def _report_unknown(self, fields: Sequence[str]) -> None:
        new = [name for name in fields if name not in self._reported_fields]
        if new:
            self._reported_fields.update(new)
            logger.warning("request: unknown fields without effect: %s", ", ".join(new))


async def create_mlc_engine(
    model_id: str | Sequence[str],
    engine_config: MLCEngineConfig | Mapping[str, Any] | None = None,
    chat_opts: ChatOpts | Sequence[ChatOpts] | None = None,
    *,
    host: EngineHost | None = None,
) -> MLCEngine:
    """Return an engine that has loaded `model_id`; see `MLCEngine.reload` for the errors."""
    engine = MLCEngine(engine_config, host=host)
    await engine.reload(model_id, chat_opts)
    return engine


def _browser_host() -> EngineHost:
    from py_engine.browser_host import BrowserHost

    return BrowserHost()
