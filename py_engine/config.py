"""What an application configures: the models it offers, the engine's options, and progress reports.

Field names are WebLLM's, so that the same objects travel as plain dictionaries between pages and
workers of either implementation.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from py_engine.chat_config import CHAT_CONFIG_FILE, ChatConfig, TokenizerInfo
from py_engine.errors import ConfigurationFieldError, ModelNotFoundError
from py_engine.json_fields import JsonFields
from py_engine.model_address import HUB

__all__ = [
    "CHAT_CONFIG_FILE",
    "AppConfig",
    "ChatConfig",
    "InitProgressReport",
    "MLCEngineConfig",
    "ModelRecord",
    "TokenizerInfo",
    "prebuilt_app_config",
]

_RECORD_FIELDS = (
    "model",
    "model_id",
    "overrides",
    "required_features",
    "vram_required_MB",
    "low_resource_required",
)


@dataclass(frozen=True)
class ModelRecord:
    """One model that an application offers.

    `model` is the URL of its files (`https://huggingface.co/owner/name`, any folder on a web
    server, or a path relative to the site). `overrides` is merged over the model's own
    configuration. `required_features` are WebGPU features. `extra` keeps WebLLM's other fields
    (`model_lib`, `integrity`, ...), which are not needed here, for `to_dict`.
    """

    model: str
    model_id: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    required_features: tuple[str, ...] = ()
    vram_required_MB: float | None = None
    low_resource_required: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_dict(data: Any) -> ModelRecord:
        """Read a record of WebLLM's `model_list`. Raises ConfigurationFieldError."""
        return _record(JsonFields(data, "ModelRecord", error=ConfigurationFieldError))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as WebLLM writes it, without empty fields."""
        values = {
            **self.extra,
            "model": self.model,
            "model_id": self.model_id,
            "overrides": dict(self.overrides),
            "required_features": list(self.required_features),
            "vram_required_MB": self.vram_required_MB,
            "low_resource_required": self.low_resource_required,
        }
        return {name: value for name, value in values.items() if value not in (None, [], {})}


def _record(fields: JsonFields) -> ModelRecord:
    vram = "vram_required_MB"
    return ModelRecord(
        model=fields.string("model"),
        model_id=fields.string("model_id"),
        overrides=dict(fields.object("overrides").data),
        required_features=fields.strings("required_features", ()),
        vram_required_MB=fields.number(vram, minimum=0) if vram in fields else None,
        low_resource_required=fields.boolean("low_resource_required", False),
        extra={name: v for name, v in fields.data.items() if name not in _RECORD_FIELDS},
    )


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


@dataclass(frozen=True)
class AppConfig:
    """The models an application offers. `extra` keeps WebLLM's other fields for `to_dict`."""

    model_list: Sequence[ModelRecord]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_dict(data: Any) -> AppConfig:
        """Read WebLLM's `AppConfig`. Raises ConfigurationFieldError."""
        fields = JsonFields(data, "AppConfig", error=ConfigurationFieldError)
        return AppConfig(
            model_list=tuple(map(_record, fields.objects("model_list"))),
            extra={name: value for name, value in fields.data.items() if name != "model_list"},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as WebLLM writes it."""
        return {**self.extra, "model_list": [record.to_dict() for record in self.model_list]}

    def record(self, model_id: str) -> ModelRecord:
        """Return the record of a model. Raises ModelNotFoundError."""
        for record in self.model_list:
            if record.model_id == model_id:
                return record
        known = [record.model_id for record in self.model_list]
        close = difflib.get_close_matches(model_id, known, n=3) or known[:3]
        raise ModelNotFoundError(
            f"model_id {model_id!r} is in no record of AppConfig.model_list "
            f"({len(known)} records, such as {', '.join(close) or 'none'}). "
            "Correct the id, or add a record for the model."
        )


@dataclass(frozen=True)
class InitProgressReport:
    """How far loading a model has come.

    `progress` runs from 0 to 1, `timeElapsed` is in seconds, `text` is for people. `loadedBytes`
    and `totalBytes` are those of the weights, and 0 while something else goes on.
    """

    progress: float
    timeElapsed: float
    text: str
    loadedBytes: int = 0
    totalBytes: int = 0

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
    # The list is only read when somebody asks for it: a worker boots without it.
    if name != "prebuilt_app_config":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.resources import files

    text = files("py_engine").joinpath("model_list.json").read_text(encoding="utf-8")
    config = AppConfig.from_dict({"model_list": json.loads(text)})
    globals()[name] = config
    return config
