"""An EngineHost whose models are scripted, and a tiny model's files to go with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from py_engine.config import AppConfig, ChatConfig, ModelRecord
from py_engine.errors import StorageError
from py_engine.gpu.types import AdapterInfo, GpuMemory, Limits
from py_engine.models.base import LoadingTokenizer, LoadProgress
from py_engine.models.memory_plan import MemoryPlan
from py_engine.storage.model_storage import ModelStorage
from py_engine.storage.source import ModelPlace
from py_engine.tokenizer import Tokenizer
from py_engine.weights.checkpoint import Checkpoint
from tests.support.fake_embedder import FakeEmbedder
from tests.support.fake_grammar import FakeGrammarCompiler
from tests.support.fake_model import FakeModel
from tests.support.memory_sessions import MemorySessions
from tests.support.memory_source import MemorySource
from tests.support.tokenizer_files import tokenizer_json

CHAT_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "quantization": "q4f16_1",
    "model_config": {},
    "vocab_size": 504,
    "context_window_size": 128,
    "temperature": 0.7,
    "top_p": 0.95,
    "eos_token_id": 500,
    "tokenizer_files": ["tokenizer.json"],
    "conv_template": {
        "system_template": "{system_message}\n",
        "system_message": "",
        "render_empty_system_message": False,
        "roles": {"user": "U", "assistant": "A"},
        "seps": ["\n"],
        "stop_str": ["\nU:"],
    },
}
END = 500


def model_files(**config: Any) -> dict[str, str]:
    """Return a model's files; `config` replaces fields of its mlc-chat-config.json."""
    return {
        "mlc-chat-config.json": json.dumps(CHAT_CONFIG | config),
        "tensor-cache.json": '{"records": []}',
        "tokenizer.json": tokenizer_json("gpt2"),
    }


class FakeDevice:
    """Knows what an engine asks of a device; `lose()` is the browser losing it."""

    def __init__(self) -> None:
        self.info = AdapterInfo(vendor="fake", description="Fake GPU")
        self.limits = Limits()
        self.features: frozenset[str] = frozenset()
        self.memory = GpuMemory(3, 4096)
        self.memory_limit: int | None = None
        self.is_destroyed = False
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def lose(self, reason: str = "unknown") -> None:
        self._lost.set_result(reason)

    async def wait_lost(self) -> str:
        return await asyncio.shield(self._lost)

    def destroy(self) -> None:
        self.is_destroyed = True


class FakeHost:
    """Serves the files of `files[model_id]` and gives each loaded model the script of `scripts`.

    `loaded` has the models in the order of loading. `before_load(config)` runs in the middle of
    each load, after half of the weights. `compilers` has the opened grammar compilers;
    `violations` is what `validate_json` finds. `storage` is what is stored, and `places` what the
    address of a record means (url, entry, quantisation), where it is not the url itself.
    """

    def __init__(self, *model_ids: str) -> None:
        self.files = {model_id: model_files() for model_id in model_ids or ("model",)}
        self.scripts: dict[str, Sequence[int]] = {}
        self.sources: list[MemorySource] = []
        self.app_configs: list[AppConfig] = []
        self.registered: dict[str, Any] = {}
        self.storage: ModelStorage | None = None
        self.sessions: MemorySessions | None = MemorySessions()
        self.places: dict[str, tuple[str, ...]] = {}
        self.devices: list[FakeDevice] = []
        self.requested_features: list[list[str]] = []
        self.memory_limits: list[int | None] = []
        self.loaded: list[FakeModel] = []
        self.device_error: Exception | None = None
        self.before_load: Callable[[ChatConfig], Any] | None = None
        self.embedders: list[FakeEmbedder] = []
        self.compilers: list[FakeGrammarCompiler] = []
        self.validated: list[tuple[str, str]] = []
        self.violations: list[str] = []

    @property
    def app_config(self) -> AppConfig:
        """Records of the models that have files."""
        return AppConfig([ModelRecord(f"memory:/{name}/", name) for name in self.files])

    async def open_source(self, record: ModelRecord, app_config: AppConfig) -> MemorySource:
        self.app_configs.append(app_config)
        source = MemorySource(self.files[record.model_id], record.model)
        self.sources.append(source)
        return source

    async def register_local_files(self, name: str, files: Any) -> str:
        self.registered[name] = files
        return f"local:{name}"

    def place_of(self, record: ModelRecord, app_config: AppConfig) -> ModelPlace | None:
        url = record.model
        return None if url.startswith("local:") else ModelPlace(*self.places.get(url, (url,)))

    async def open_storage(self, app_config: AppConfig) -> ModelStorage:
        assert self.storage is not None
        return self.storage

    async def open_sessions(self) -> MemorySessions:
        if self.sessions is None:
            raise StorageError("This browser has no origin private file system.")
        return self.sessions

    async def request_device(
        self, required_features: Sequence[str], memory_limit: int | None = None
    ) -> Any:
        self.requested_features.append(list(required_features))
        self.memory_limits.append(memory_limit)
        if self.device_error is not None:
            raise self.device_error
        device = FakeDevice()
        device.memory_limit = memory_limit
        self.devices.append(device)
        return device

    async def plan_memory(
        self, device: Any, checkpoint: Checkpoint, config: ChatConfig
    ) -> MemoryPlan:
        return MemoryPlan(weights=1000, working=24)

    async def load_model(
        self,
        device: Any,
        checkpoint: Checkpoint,
        config: ChatConfig,
        on_progress: Callable[[LoadProgress], None],
        tokenizer: LoadingTokenizer,
    ) -> FakeModel:
        config = replace(
            config, active_vocab_size=min(config.active_vocab_size, await tokenizer.vocab_size())
        )
        on_progress(LoadProgress("kernels", 1, 4))
        on_progress(LoadProgress("weights", 500_000, 1_000_000))
        if self.before_load is not None:
            result = self.before_load(config)
            if result is not None:
                await result
        on_progress(LoadProgress("weights", 1_000_000, 1_000_000))
        on_progress(LoadProgress("kernels", 4, 4))
        model_id = checkpoint.source.url.removeprefix("memory:/").rstrip("/")
        model = FakeModel(
            self.scripts.get(model_id, ()), context_window_size=config.context_window_size
        )
        model.activation_dtype = config.activation_dtype
        self.loaded.append(model)
        return model

    async def load_embedder(
        self,
        device: Any,
        checkpoint: Checkpoint,
        config: ChatConfig,
        on_progress: Callable[[LoadProgress], None],
    ) -> FakeEmbedder:
        on_progress(LoadProgress("weights", 1, 1))
        embedder = FakeEmbedder(vocab_size=config.vocab_size, max_batch_size=2)
        self.embedders.append(embedder)
        return embedder

    async def open_grammar_compiler(
        self, tokenizer: Tokenizer, vocab_size: int, stop_token_ids: frozenset[int]
    ) -> FakeGrammarCompiler:
        tokens = [tokenizer.decode([index]) for index in range(vocab_size)]
        self.compilers.append(FakeGrammarCompiler(tokens, vocab_size, stop_token_ids))
        return self.compilers[-1]

    async def validate_json(self, schema: str, instance: str) -> list[str]:
        self.validated.append((schema, instance))
        return self.violations

    async def load_numpy(self) -> None:
        pass
