"""What an engine is made with, as users give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from py_engine.api.objects import plain
from py_engine.config import AppConfig, MLCEngineConfig
from py_engine.errors import ConfigValueError


def engine_config(config: MLCEngineConfig | Mapping[str, Any] | None) -> MLCEngineConfig:
    """Return the configuration as its class; a mapping may give the models as a mapping too.

    Errors: ConfigValueError for other fields; those of `app_config`.
    """
    if config is None or isinstance(config, MLCEngineConfig):
        return config or MLCEngineConfig()
    fields = dict(config)
    if fields.get("app_config") is not None:
        fields["app_config"] = app_config(fields["app_config"])
    try:
        return MLCEngineConfig(**fields)
    except TypeError as error:
        raise ConfigValueError(
            f"engine_config: {error}. Its fields are app_config, init_progress_callback, "
            "log_level and logit_processor_registry."
        ) from error


def app_config(config: AppConfig | Mapping[str, Any]) -> AppConfig:
    """Return the list of models as its class. Errors: those of `AppConfig.from_dict`."""
    return config if isinstance(config, AppConfig) else AppConfig.from_dict(plain(config))
