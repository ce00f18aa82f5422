"""The browser as an engine's host: `fetch` for files, WebGPU for computing.

Imported only where an engine is made without another host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pywebllm_worker
from pyodide.ffi import JsException

from py_engine.config import AppConfig, ChatConfig, ModelRecord
from py_engine.errors import ConfigurationError
from py_engine.gpu.adapter import GpuKeeper
from py_engine.gpu.clock import clock_of
from py_engine.gpu.types import Device
from py_engine.grammar import GrammarCompiler
from py_engine.grammar.backend_browser import BrowserGrammarCompiler
from py_engine.grammar.vocabulary import vocabulary_of
from py_engine.images_browser import load_image
from py_engine.models.base import LoadingTokenizer, LoadProgress, SamplingParams, TextModel
from py_engine.models.decoder import Decoder
from py_engine.models.embedder import Embedder
from py_engine.models.encoder_loader import load_embedder, plan_embedder_load
from py_engine.models.form_choice import FormChooser
from py_engine.models.images import HostImage
from py_engine.models.loader import load_model, plan_load
from py_engine.models.memory_plan import MemoryPlan
from py_engine.models.profile import KernelProfile, profile_kernels
from py_engine.models.quality_gate import QualityGate
from py_engine.models.registry import ENCODERS
from py_engine.resumable.files import SessionFiles
from py_engine.resumable.files_browser import OpfsSessions
from py_engine.storage.choices_browser import BrowserChoices
from py_engine.storage.model_storage import ModelStorage
from py_engine.storage.open_browser import BrowserSources
from py_engine.storage.source import ModelPlace, ModelSource
from py_engine.storage.unstored import NoStorage
from py_engine.tokenizer import Tokenizer
from py_engine.weights.checkpoint import Checkpoint


class BrowserHost:
    """Implements `host.EngineHost`."""

    def __init__(self) -> None:
        self._sources = BrowserSources(pywebllm_worker.siteUrl)
        self._gpus = GpuKeeper()
        choices = BrowserChoices()
        self._chooser = FormChooser(choices, clock_of)
        self._gate = QualityGate(choices)

    async def open_source(self, record: ModelRecord, app_config: AppConfig) -> ModelSource:
        """Return where the record's files are; a relative address is the site's."""
        pywebllm_worker.beginTokenizers()  # every model needs the library, which compiles meanwhile
        return await self._sources.open(record, app_config)

    async def register_local_files(self, name: str, files: Any) -> str:
        """Take JavaScript Files, or handles of files and folders."""
        return await self._sources.register_local_files(name, files)

    def place_of(self, record: ModelRecord, app_config: AppConfig) -> ModelPlace | None:
        """Return where a record's files are kept."""
        return self._sources.place_of(record, app_config)

    async def open_storage(self, app_config: AppConfig) -> ModelStorage | NoStorage:
        """Return the browser's store of the configured kind."""
        return await self._sources.open_storage(app_config)

    async def open_sessions(self) -> SessionFiles:
        """Return the sessions in the origin private file system."""
        return await OpfsSessions.open()

    async def request_device(
        self, required_features: Sequence[str], memory_limit: int | None = None
    ) -> Device:
        """Return a device of the browser's fastest GPU; the next one is on the same GPU."""
        return await self._gpus.request_device(required_features, memory_limit)

    async def plan_memory(
        self, device: Device, checkpoint: Checkpoint, config: ChatConfig
    ) -> MemoryPlan:
        """Return the plan that `load_model` or `load_embedder` will make again."""
        if config.model_type in ENCODERS:
            return plan_embedder_load(device, checkpoint, config)[2]
        return (await plan_load(device, checkpoint, config, takes_images=True)).memory

    async def load_model(
        self,
        device: Device,
        checkpoint: Checkpoint,
        config: ChatConfig,
        on_progress: Callable[[LoadProgress], None],
        tokenizer: LoadingTokenizer,
    ) -> TextModel:
        """Load weights and kernels."""
        return await load_model(
            device,
            checkpoint,
            config,
            on_progress,
            takes_images=True,
            tokenizer=tokenizer,
            chooser=self._chooser,
            gate=self._gate,
        )

    async def profile_kernels(
        self,
        model: TextModel,
        n_tokens: int,
        sampling: SamplingParams,
        before_each: Callable[[], None],
    ) -> KernelProfile:
        """Time kernels on the GPU that has the model."""
        assert isinstance(model, Decoder)
        clock = clock_of(model.device)
        return await profile_kernels(model, clock, n_tokens, sampling, before_each)

    async def load_embedder(
        self,
        device: Device,
        checkpoint: Checkpoint,
        config: ChatConfig,
        on_progress: Callable[[LoadProgress], None],
    ) -> Embedder:
        """Load weights and kernels of an embedding model."""
        return await load_embedder(device, checkpoint, config, on_progress)

    async def open_grammar_compiler(
        self, tokenizer: Tokenizer, vocab_size: int, stop_token_ids: frozenset[int]
    ) -> GrammarCompiler:
        """Return a compiler; the library is fetched at its first grammar."""
        return BrowserGrammarCompiler(vocabulary_of(tokenizer, vocab_size, stop_token_ids))

    async def validate_json(self, schema: str, instance: str) -> list[str]:
        """Return what is wrong by `@cfworker/json-schema`, fetched at the first call.

        An instance that is not JSON is said to be that.
        """
        errors: list[str] = (await pywebllm_worker.validateJson(schema, instance)).to_py()
        return errors

    async def load_image(self, source: Any, what: str) -> HostImage:
        """Fetch and decode an image."""
        return await load_image(source, what)

    async def load_numpy(self) -> None:
        """Load Pyodide's NumPy from the site. Errors: ConfigurationError where it has none."""
        import pyodide_js

        try:
            await pyodide_js.loadPackage("numpy")
            import numpy  # noqa: F401
        except (JsException, ImportError) as error:
            raise ConfigurationError(
                f"NumPy, which logit processors need, is not to be had from this site ({error}). "
                "Build the site with NumPy: `python3 build.py site` on a machine with a network."
            ) from error
