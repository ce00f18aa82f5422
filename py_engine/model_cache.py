"""The models that the browser has stored: WebLLM's cache functions, and a list.

Runs on CPython, Pyodide and MicroPython: in the worker, and on the main thread, with an engine or
without one. The functions take an `app_config` (an AppConfig or a dict), by default the prebuilt
one, because its records say where a model's files are from and its `cacheBackend` where they are
kept. On the main thread the answer comes from a worker: that of `engine`, if one is given, else
from one that is started for the call at `worker_url` (by default the site's), which takes about a
second.

Errors: ModelNotFoundError; StorageError's classes, such as StorageBusyError while a model that is
to be deleted is downloaded in some tab.
"""

import sys

from py_engine.api.objects import ApiObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from py_engine.config import AppConfig


async def has_model_in_cache(
    model_id: str,
    app_config: "AppConfig | Mapping[str, Any] | None" = None,
    engine: "Any" = None,
    worker_url: "str | None" = None,
) -> bool:
    """Whether all files of a model are stored, by us or by WebLLM: it loads without a download."""
    return bool(await _ask("has_model", model_id, app_config, engine, worker_url))


async def delete_model_in_cache(
    model_id: str,
    app_config: "AppConfig | Mapping[str, Any] | None" = None,
    engine: "Any" = None,
    worker_url: "str | None" = None,
) -> None:
    """Delete a model's weights, their index and its tokenizer, half-downloaded files too.

    Those that WebLLM stored go, too. Other ids with the same address lose them as well.
    """
    await _ask("delete_model", model_id, app_config, engine, worker_url)


async def delete_chat_config_in_cache(
    model_id: str,
    app_config: "AppConfig | Mapping[str, Any] | None" = None,
    engine: "Any" = None,
    worker_url: "str | None" = None,
) -> None:
    """Delete a model's configuration files."""
    await _ask("delete_chat_config", model_id, app_config, engine, worker_url)


async def delete_model_wasm_in_cache(
    model_id: str,
    app_config: "AppConfig | Mapping[str, Any] | None" = None,
    engine: "Any" = None,
    worker_url: "str | None" = None,
) -> None:
    """Do nothing: no model has a compiled library here. The function is there for WebLLM's apps."""
    await _ask("delete_model_wasm", model_id, app_config, engine, worker_url)


async def delete_model_all_info_in_cache(
    model_id: str,
    app_config: "AppConfig | Mapping[str, Any] | None" = None,
    engine: "Any" = None,
    worker_url: "str | None" = None,
) -> None:
    """Delete everything that is stored of a model, what WebLLM stored of it included."""
    await _ask("delete_model_all_info", model_id, app_config, engine, worker_url)


async def list_models_in_cache(
    app_config: "AppConfig | Mapping[str, Any] | None" = None,
    engine: "Any" = None,
    worker_url: "str | None" = None,
) -> "list[ApiObject]":
    """Return what is stored, half-downloaded models too, also those of no record.

    Each has `url`, `model_ids` (of the records with this address), `stored_bytes`, `total_bytes`,
    `is_complete` and `files` (bytes stored by path).
    """
    found = await _ask("list_models", None, app_config, engine, worker_url)
    return [ApiObject(item) for item in found]


async def _ask(
    action: str, model_id: "str | None", app_config: "Any", engine: "Any", worker_url: "str | None"
) -> "Any":
    if engine is not None:
        return await engine.model_cache(action, model_id, app_config)
    if "pywebllm_worker" in sys.modules:  # here is the worker
        return await _browser_models().do(action, model_id, app_config)
    from py_engine.rpc.client import WebWorkerMLCEngine

    proxy = WebWorkerMLCEngine(worker_url)
    try:
        return await proxy.model_cache(action, model_id, app_config)
    finally:
        proxy.terminate()


def _browser_models() -> "Any":
    # By name, so that a page is not served the worker's modules.
    for name in ("py_engine.cached_models", "py_engine.browser_host"):
        __import__(name)
    host = sys.modules["py_engine.browser_host"].BrowserHost()
    return sys.modules["py_engine.cached_models"].CachedModels(host)
