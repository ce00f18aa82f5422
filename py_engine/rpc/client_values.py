"""What users give a proxy, as its messages carry it.

Runs on CPython, Pyodide and MicroPython.
"""

from py_engine.errors import ConfigValueError
from py_engine.json_values import jsonable, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ENGINE_CONFIG_FIELDS = ("app_config", "init_progress_callback", "log_level")


def checked_config(engine_config: "Any") -> "dict[str, Any]":
    """Return the fields of an MLCEngineConfig, or of a dict, that are set.

    Errors: ConfigValueError for others, and for processors, which run in the worker.
    """
    if engine_config is None:
        return {}
    fields = engine_config
    if not isinstance(engine_config, dict):  # an MLCEngineConfig
        names = ENGINE_CONFIG_FIELDS + ("logit_processor_registry",)  # noqa: RUF005  MicroPython
        fields = given(**{name: getattr(engine_config, name) for name in names})
    if fields.get("logit_processor_registry"):
        raise ConfigValueError(
            "engine_config has a logit_processor_registry, but processors run in the worker: "
            "register them in its script, as docs/logit-processors.md shows."
        )
    for field in fields:
        if field not in ENGINE_CONFIG_FIELDS:
            raise ConfigValueError(
                f'engine_config has the unknown field "{field}"; '
                f"its fields are {', '.join(ENGINE_CONFIG_FIELDS)}."
            )
    return dict(fields)


def plain_config(app_config: "Any") -> "Any":
    """Return an AppConfig as a dict; anything else as it is."""
    to_dict = getattr(app_config, "to_dict", None)
    return to_dict() if to_dict else app_config


def plain_request(request: "Mapping[str, Any]") -> "dict[str, Any]":
    """Return a copy of a request that JSON can carry. Raises ConfigValueError."""
    copy = jsonable(request, "request")
    if not isinstance(copy, dict):
        raise ConfigValueError(f"request is {shown(request)}, but must be an object.")
    return copy


def given(**fields: "Any") -> "dict[str, Any]":
    """Return the fields that are set: WebLLM takes an absent field for `undefined`."""
    return {name: value for name, value in fields.items() if value is not None}
