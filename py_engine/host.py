"""What an engine needs of the outside world; tests bring their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from py_engine.config import ChatConfig, ModelRecord
from py_engine.gpu.types import Device
from py_engine.models.base import LoadProgress, TextModel
from py_engine.storage.source import ModelSource


class EngineHost(Protocol):
    """The files, the GPU, and what computes on it. `browser_host.BrowserHost` is the browser's."""

    def open_source(self, record: ModelRecord) -> ModelSource:
        """Return where the record's files are."""
        ...

    async def request_device(self, required_features: Sequence[str]) -> Device:
        """Return a GPU device that has the features. Raises DeviceError's classes."""
        ...

    async def load_model(
        self,
        device: Device,
        source: ModelSource,
        config: ChatConfig,
        on_progress: Callable[[LoadProgress], None],
    ) -> TextModel:
        """Load the model of `config` onto `device`; on failure nothing stays there."""
        ...
