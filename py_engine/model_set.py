"""What is loaded: the models and the GPU device they share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from py_engine.config import AppConfig, ModelRecord
from py_engine.errors import (
    ConfigurationFieldError,
    DeviceLostError,
    EmbeddingUnsupportedModelError,
    IncorrectPipelineLoadedError,
    MLCError,
    ModelNotLoadedError,
    OutOfMemoryError,
    ReloadArgumentSizeUnmatchedError,
    ReloadModelIdNotUniqueError,
)
from py_engine.generation import LogitProcessor
from py_engine.gpu.types import Device, GpuMemory
from py_engine.host import EngineHost
from py_engine.json_values import shown
from py_engine.loaded_embedder import EmbeddingModel
from py_engine.loaded_model import LoadedModel
from py_engine.model_loading import (
    OpenedModel,
    load_opened,
    open_model,
    require_known_architecture,
    require_memory_for_all,
)
from py_engine.model_selection import select_model_id
from py_engine.progress import LoadReporter, ProgressCallback

ChatOpts = Mapping[str, Any]


@dataclass(frozen=True)
class LoadPlan:
    """The records to load, each with its options, and the configuration they are from."""

    app_config: AppConfig
    models: Sequence[tuple[ModelRecord, ChatOpts | None]]


logger = logging.getLogger(__name__)


class ModelSet:
    """Loads and frees models. After any failure nothing is loaded, and it can be used again."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host
        self._models: dict[str, LoadedModel | EmbeddingModel] = {}
        self._processors: dict[str, LogitProcessor] = {}
        self._device: Device | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._lost_loading: DeviceLostError | None = None
        self._n_calls = 0  # of `load` and `unload`: only the latest may go on

    @property
    def model_ids(self) -> list[str]:
        """The ids of the loaded models, in the order in which they were loaded."""
        return list(self._models)

    @property
    def takes_images(self) -> bool:
        """Whether any of the loaded models does."""
        return any(model.vision is not None for model in self._language_models())

    def select(
        self, model_id: str | None, request_name: str
    ) -> tuple[str, LoadedModel | EmbeddingModel]:
        """Return the model that a request is for, with its id.

        Errors: ModelNotLoadedError, SpecifiedModelNotFoundError, UnclearModelToUseError.
        """
        selected = select_model_id(self.model_ids, model_id, request_name)
        return selected, self._models[selected]

    def select_language_model(
        self, model_id: str | None, request_name: str
    ) -> tuple[str, LoadedModel]:
        """`select`; raises IncorrectPipelineLoadedError for an embedding model."""
        selected, model = self.select(model_id, request_name)
        if not isinstance(model, LoadedModel):
            raise IncorrectPipelineLoadedError(
                f"{request_name} needs a language model, but '{selected}' is an embedding model. "
                "Name another model in the request's `model`, or use embeddings.create."
            )
        return selected, model

    def select_embedding_model(
        self, model_id: str | None, request_name: str
    ) -> tuple[str, EmbeddingModel]:
        """`select`; raises EmbeddingUnsupportedModelError for a language model."""
        selected, model = self.select(model_id, request_name)
        if not isinstance(model, EmbeddingModel):
            raise EmbeddingUnsupportedModelError(
                f"{request_name} needs an embedding model, but '{selected}' is a language model. "
                "Load one, such as a snowflake-arctic-embed, and name it in the request's `model`."
            )
        return selected, model

    def interrupt(self) -> None:
        """End the running reply of every model."""
        for model in self._language_models():
            model.interrupt()

    def set_logit_processors(self, processors: Mapping[str, LogitProcessor]) -> None:
        """Let these processors, by model id, change the logits of loaded and later models."""
        self._processors = dict(processors)
        for model_id, model in self._models.items():
            if isinstance(model, LoadedModel):
                model.logit_processor = self._processors.get(model_id)

    async def load(
        self, plan: Callable[[], LoadPlan], callback: Callable[[], ProgressCallback | None]
    ) -> None:
        """Unload everything, then load what `plan` returns.

        Returns with nothing loaded when another call of `load` or `unload` comes meanwhile.
        """
        number = self._n_calls + 1
        await self.unload()
        if self._n_calls != number:
            return
        self._lost_loading = None
        loading = self._loading = asyncio.ensure_future(self._load(plan(), callback))
        try:
            await loading
        except asyncio.CancelledError:
            if self._lost_loading is not None:
                raise self._lost_loading from None
            if self._n_calls == number:  # it was the caller who was cancelled
                raise
            logger.warning("reload was ended by another call of reload or unload")
        finally:
            if self._loading is loading:
                self._loading = None

    async def unload(self) -> None:
        """Free everything, and end a `load` under way; running requests fail."""
        self._n_calls += 1
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        self._free(ModelNotLoadedError("The model was unloaded during the request; load it again."))

    def gpu_memory(self) -> tuple[GpuMemory, int | None]:
        """Return what the loaded models take on the GPU, and the most that they may, in bytes."""
        device = self._device
        return (GpuMemory(), None) if device is None else (device.memory, device.memory_limit)

    async def any_device(self) -> Device:
        """Return the device in use, or one that is only good for asking about the GPU."""
        if self._device is not None:
            return self._device
        device = await self._host.request_device(())
        device.destroy()
        return device

    async def _load(self, plan: LoadPlan, callback: Callable[[], ProgressCallback | None]) -> None:
        reporter = LoadReporter(callback, len(plan.models))
        features = sorted({name for record, _ in plan.models for name in record.required_features})
        try:
            device = self._device = await self._host.request_device(
                features, plan.app_config.gpu_memory_limit
            )
            self._watcher = asyncio.ensure_future(self._watch(device))
            opened = []
            for record, chat_opts in plan.models:
                reporter.open_model(record.model_id)
                source = await self._host.open_source(record, plan.app_config)
                opened.append(await open_model(source, record, chat_opts))
            await require_memory_for_all(self._host, opened, device)
            for each in opened:
                model = await self._load_one(each, device, reporter)
                self._add(each.record.model_id, model)
                is_int8 = isinstance(model, LoadedModel) and model.config.activation_dtype == "int8"
                used = (str(device.info), *(("int8 activations",) if is_int8 else ()))
                reporter.finish_model(each.record.model_id, ", ".join(filter(None, used)))
        except BaseException:
            self._free(ModelNotLoadedError("Loading another model failed: nothing is loaded now."))
            raise

    async def _load_one(
        self, opened: OpenedModel, device: Device, reporter: LoadReporter
    ) -> LoadedModel | EmbeddingModel:
        try:
            return await load_opened(self._host, opened, device, reporter)
        except OutOfMemoryError as error:
            if not self._models:
                raise
            others, megabytes = ", ".join(self._models), device.memory.nbytes / 1e6
            raise OutOfMemoryError(
                f"{opened.record.model_id}: {error} ({others}, loaded before it, take "
                f"{megabytes:,.1f} MB.)"
            ) from error

    def _language_models(self) -> Iterable[LoadedModel]:
        return (model for model in self._models.values() if isinstance(model, LoadedModel))

    def _add(self, model_id: str, model: LoadedModel | EmbeddingModel) -> None:
        if isinstance(model, LoadedModel):
            model.logit_processor = self._processors.get(model_id)
        self._models[model_id] = model

    async def _watch(self, device: Device) -> None:
        """Free everything when the device is lost, and end a load onto it."""
        reason = await device.wait_lost()
        logger.error("The GPU device was lost (%s).", reason)
        self._watcher = None
        lost = _device_lost(reason)
        self._free(lost)
        if self._loading is not None:
            self._lost_loading = lost
            self._loading.cancel()

    def _free(self, reason: MLCError) -> None:
        models, self._models = self._models, {}
        for model in models.values():
            model.close(reason)
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        device, self._device = self._device, None
        if device is not None:
            device.destroy()


def load_plan(
    app_config: AppConfig,
    model_id: str | Sequence[str],
    chat_opts: ChatOpts | Sequence[ChatOpts | None] | None,
) -> LoadPlan:
    """Return what to load.

    Errors: those of `load_arguments`, ModelNotFoundError, UnknownArchitectureError.
    """
    ids, options = load_arguments(model_id, chat_opts)
    records = [app_config.record(each) for each in ids]
    for record in records:
        require_known_architecture(record)
    return LoadPlan(app_config, list(zip(records, options, strict=True)))


def load_arguments(model_id: Any, chat_opts: Any) -> tuple[list[str], list[ChatOpts | None]]:
    """Return the arguments of `reload` as lists of one length.

    Errors: ConfigurationFieldError, ReloadArgumentSizeUnmatchedError, ReloadModelIdNotUniqueError.
    """
    ids = [model_id] if isinstance(model_id, str) else model_id
    if not isinstance(ids, Sequence) or not all(isinstance(each, str) for each in ids):
        raise ConfigurationFieldError(
            f"reload: model_id is {shown(model_id)}, but must be an id or a list of ids."
        )
    options = [None] * len(ids) if chat_opts is None else chat_opts
    options = [options] if isinstance(options, Mapping) else options
    if not isinstance(options, Sequence) or not all(
        isinstance(each, Mapping | None) for each in options
    ):
        raise ConfigurationFieldError(
            f"reload: chat_opts is {shown(chat_opts)}, but must be an object of options, or a list "
            "with one for each model."
        )
    if len(options) != len(ids):
        raise ReloadArgumentSizeUnmatchedError(
            f"reload: {len(ids)} model ids, but {len(options)} chat_opts. Give one for each."
        )
    if len(set(ids)) < len(ids):
        raise ReloadModelIdNotUniqueError(f"reload: {ids} has an id twice. Give each id once.")
    return list(ids), list(options)


def _device_lost(reason: str) -> DeviceLostError:
    return DeviceLostError(
        f"The GPU device was lost ({reason}), often for lack of GPU memory. Call reload again, "
        "with a smaller model or context_window_size if it happens again."
    )
