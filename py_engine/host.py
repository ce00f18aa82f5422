"""What an engine needs of the outside world; tests bring their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from py_engine.config import AppConfig, ChatConfig, ModelRecord
from py_engine.gpu.types import Device
from py_engine.grammar import GrammarCompiler
from py_engine.models.base import LoadingTokenizer, LoadProgress, SamplingParams, TextModel
from py_engine.models.embedder import Embedder
from py_engine.models.images import HostImage
from py_engine.models.memory_plan import MemoryPlan
from py_engine.models.profile import KernelProfile
from py_engine.resumable.files import SessionFiles
from py_engine.storage.model_storage import ModelStorage
from py_engine.storage.source import ModelPlace, ModelSource
from py_engine.storage.unstored import NoStorage
from py_engine.tokenizer import Tokenizer
from py_engine.weights.checkpoint import Checkpoint


class EngineHost(Protocol):
    """The files, the GPU, and the libraries. `browser_host.BrowserHost` is the browser's."""

    async def open_source(self, record: ModelRecord, app_config: AppConfig) -> ModelSource:
        """Return where the record's files are. Errors: as the source's readers."""
        ...

    async def register_local_files(self, name: str, files: Any) -> str:
        """Take what a user picked; return the address, `local:NAME`, that it is then loaded by."""
        ...

    def place_of(self, record: ModelRecord, app_config: AppConfig) -> ModelPlace | None:
        """Return where a record's files are kept; None for local files, which are not."""
        ...

    async def open_storage(self, app_config: AppConfig) -> ModelStorage | NoStorage:
        """Return the store of downloaded files; one that is always empty where nothing is kept."""
        ...

    async def open_sessions(self) -> SessionFiles:
        """Return where resumable generations are kept. Raises StorageError where there is none."""
        ...

    async def request_device(
        self, required_features: Sequence[str], memory_limit: int | None = None
    ) -> Device:
        """Return a GPU device that has the features. Raises DeviceError's classes.

        Its buffers may take `memory_limit` bytes; None leaves that to the host.
        """
        ...

    async def plan_memory(
        self, device: Device, checkpoint: Checkpoint, config: ChatConfig
    ) -> MemoryPlan:
        """Return what a model will take on `device`, before anything large of it is read."""
        ...

    async def load_model(
        self,
        device: Device,
        checkpoint: Checkpoint,
        config: ChatConfig,
        on_progress: Callable[[LoadProgress], None],
        tokenizer: LoadingTokenizer,
    ) -> TextModel:
        """Load a language model onto `device`; on failure nothing stays there.

        Tokens that `tokenizer` does not have are never drawn.
        """
        ...

    async def profile_kernels(
        self,
        model: TextModel,
        n_tokens: int,
        sampling: SamplingParams,
        before_each: Callable[[], None],
    ) -> KernelProfile:
        """Time the kernels of a model, up to `n_tokens` and after; see `models.profile`."""
        ...

    async def load_embedder(
        self,
        device: Device,
        checkpoint: Checkpoint,
        config: ChatConfig,
        on_progress: Callable[[LoadProgress], None],
    ) -> Embedder:
        """Load an embedding model onto `device`; on failure nothing stays there."""
        ...

    async def open_grammar_compiler(
        self, tokenizer: Tokenizer, vocab_size: int, stop_token_ids: frozenset[int]
    ) -> GrammarCompiler:
        """Return a compiler of grammars over a model's tokens; `vocab_size` is its logits'."""
        ...

    async def validate_json(self, schema: str, instance: str) -> list[str]:
        """Return what is wrong with a JSON text by a JSON Schema's text; nothing when valid."""
        ...

    async def load_image(self, source: Any, what: str) -> HostImage:
        """Return an image's pixels, given its URL or an image object; `what` names it in errors.

        Errors: ImageError, ContentTypeError for an object that is no image.
        """
        ...

    async def load_numpy(self) -> None:
        """Make `import numpy` work."""
        ...
