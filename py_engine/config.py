"""What an application configures: the models it offers, the engine's options, and progress reports.

Field names are WebLLM's, so that the same objects travel as plain dictionaries between pages and
workers of either implementation.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from py_engine.chat_config import CHAT_CONFIG_FILE, ChatConfig, TokenizerInfo
from py_engine.errors import ConfigurationFieldError, ModelNotFoundError
from py_engine.json_fields import JsonFields
from py_engine.model_address import HUB, is_address
from py_engine.model_record import ModelRecord, ModelType

__all__ = [
    "CHAT_CONFIG_FILE",
    "AppConfig",
    "ChatConfig",
    "HuggingFaceConfig",
    "InitProgressReport",
    "MLCEngineConfig",
    "ModelRecord",
    "ModelType",
    "TokenizerInfo",
    "prebuilt_app_config",
]

CACHE_BACKENDS = ("opfs", "cache", "indexeddb", "cross-origin")
OPFS_ACCESS_MODES = ("async", "sync", "auto")


@dataclass(frozen=True)
class HuggingFaceConfig:
    """Where the hub is, and who asks.

    `endpoint` may be a mirror; its server must let this site read (CORS). `path_template` is
    appended to it, with `{repo}` (owner/name) and `{revision}`, for the folder of a model's files.
    `token` is an access token for private and gated repositories: it is sent to the endpoint
    only, and neither shown nor stored.
    """

    endpoint: str = HUB
    path_template: str = "{repo}/resolve/{revision}/"
    token: str | None = field(default=None, repr=False)

    @staticmethod
    def from_fields(fields: JsonFields) -> HuggingFaceConfig:
        """Read `AppConfig.huggingface`. Raises ConfigurationFieldError."""
        default = HuggingFaceConfig()
        config = HuggingFaceConfig(
            fields.string("endpoint", default.endpoint),
            fields.string("path_template", default.path_template),
            fields.string("token", "") or None,
        )
        if not config.endpoint.startswith(("https://", "http://")):
            raise fields.invalid("endpoint", "a URL, such as https://huggingface.co")
        try:
            config.path_template.format(repo="owner/name", revision="main")
        except (KeyError, ValueError, IndexError):
            raise fields.invalid(
                "path_template", "a text with {repo} and {revision}, and no other braces"
            ) from None
        if "{repo}" not in config.path_template:
            raise fields.invalid("path_template", "a text with {repo} in it")
        return config


def _prebuilt_records() -> Sequence[ModelRecord]:
    return _read_prebuilt().model_list


@dataclass(frozen=True)
class AppConfig:
    """The models an application offers, by default the prebuilt ones, and where files come from.

    `cacheBackend` says where downloaded files are kept: "opfs" (the default), "cache" (Cache API),
    "indexeddb" or "cross-origin". `opfsAccessMode` is WebLLM's; here the fastest way that the
    thread has is taken. The models' buffers on the GPU may take `gpuMemoryLimitMB` together (MB of
    10^6 bytes); without it, what the browser tells of the machine's memory. `extra` keeps other
    fields for `to_dict`.
    """

    model_list: Sequence[ModelRecord] = field(default_factory=_prebuilt_records)
    cacheBackend: str | None = None
    opfsAccessMode: str | None = None
    gpuMemoryLimitMB: float | None = None
    huggingface: HuggingFaceConfig = field(default_factory=HuggingFaceConfig)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_dict(data: Any) -> AppConfig:
        """Read WebLLM's `AppConfig`; without `model_list` it offers the prebuilt models.

        Raises ConfigurationFieldError.
        """
        fields = JsonFields(data, "AppConfig", error=ConfigurationFieldError)
        limit = "gpuMemoryLimitMB"
        known = ("model_list", "cacheBackend", "opfsAccessMode", "huggingface", limit)
        records = (
            tuple(map(ModelRecord.from_fields, fields.objects("model_list")))
            if "model_list" in fields
            else _prebuilt_records()
        )
        return AppConfig(
            model_list=records,
            cacheBackend=_one_of(fields, "cacheBackend", CACHE_BACKENDS),
            opfsAccessMode=_one_of(fields, "opfsAccessMode", OPFS_ACCESS_MODES),
            gpuMemoryLimitMB=fields.number(limit, above=0) if limit in fields else None,
            huggingface=HuggingFaceConfig.from_fields(fields.object("huggingface")),
            extra={name: value for name, value in fields.data.items() if name not in known},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as it travels to a worker, with the access token."""
        hub, default = vars(self.huggingface), vars(HuggingFaceConfig())
        values = {
            **self.extra,
            "model_list": [record.to_dict() for record in self.model_list],
            "cacheBackend": self.cacheBackend,
            "opfsAccessMode": self.opfsAccessMode,
            "gpuMemoryLimitMB": self.gpuMemoryLimitMB,
            "huggingface": {name: hub[name] for name in hub if hub[name] != default[name]} or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    @property
    def gpu_memory_limit(self) -> int | None:
        """`gpuMemoryLimitMB` in bytes."""
        return None if self.gpuMemoryLimitMB is None else int(self.gpuMemoryLimitMB * 1e6)

    def record(self, model_id: str) -> ModelRecord:
        """Return the record of a model; an address that is no id stands for itself.

        Raises ModelNotFoundError.
        """
        for record in self.model_list:
            if record.model_id == model_id:
                return record
        if is_address(model_id):
            return ModelRecord(model_id, model_id)
        known = [record.model_id for record in self.model_list]
        close = difflib.get_close_matches(model_id, known, n=3) or known[:3]
        raise ModelNotFoundError(
            f"model_id {model_id!r} is in no record of AppConfig.model_list "
            f"({len(known)} records, such as {', '.join(close) or 'none'}). Correct the id, add a "
            "record for the model, or give its address (hf:owner/name, a URL)."
        )


def _one_of(fields: JsonFields, name: str, values: tuple[str, ...]) -> str | None:
    if name not in fields:
        return None
    if fields.value(name) not in values:
        raise fields.invalid(name, f"one of {', '.join(values)}")
    return fields.string(name)


@dataclass(frozen=True)
class InitProgressReport:
    """How far loading a model has come.

    `progress` runs from 0 to 1 and never goes back, `timeElapsed` is in seconds, `text` is for
    people. `loadedBytes` and `totalBytes` are those of the weights that are downloaded or loaded,
    0 while something else goes on; `bytesPerSecond` is their rate of late (0: not known yet) and
    `remainingSeconds` how long the rest of them takes (None: not known).
    """

    progress: float
    timeElapsed: float
    text: str
    loadedBytes: int = 0
    totalBytes: int = 0
    bytesPerSecond: float = 0.0
    remainingSeconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as it travels between threads."""
        return dict(vars(self))


@dataclass(frozen=True)
class MLCEngineConfig:
    """Options of an engine. An `app_config` replaces the prebuilt one.

    `logit_processor_registry` has a LogitProcessor by model id (`generation/logit_processor.py`);
    only an engine itself can take it, no proxy of one in a worker.
    """

    app_config: AppConfig | None = None
    init_progress_callback: Callable[[InitProgressReport], None] | None = None
    log_level: str = "WARN"
    logit_processor_registry: Mapping[str, Any] | None = None


prebuilt_app_config: AppConfig


def __getattr__(name: str) -> Any:
    if name != "prebuilt_app_config":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _read_prebuilt()


@cache
def _read_prebuilt() -> AppConfig:
    """Read the list when somebody first asks for it: a worker boots without it."""
    from importlib.resources import files

    text = files("py_engine").joinpath("model_list.json").read_text(encoding="utf-8")
    return AppConfig.from_dict({"model_list": json.loads(text)})
