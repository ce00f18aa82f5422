"""PyWebLLM: large language models in the browser, in Python.

The public names are loaded when they are first used, so that each thread imports only what it
needs, and MicroPython can import the proxies of `py_engine.rpc.client` from this package.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from py_engine.abort import AbortController, AbortSignal
    from py_engine.api.objects import ApiObject
    from py_engine.config import (
        AppConfig,
        HuggingFaceConfig,
        InitProgressReport,
        MLCEngineConfig,
        ModelRecord,
        ModelType,
        prebuilt_app_config,
    )
    from py_engine.engine import MLCEngine, create_mlc_engine
    from py_engine.errors import MLCError
    from py_engine.integrity import ModelIntegrity, is_valid_sri, verify_integrity
    from py_engine.model_cache import (
        delete_chat_config_in_cache,
        delete_model_all_info_in_cache,
        delete_model_in_cache,
        delete_model_wasm_in_cache,
        has_model_in_cache,
        list_models_in_cache,
    )
    from py_engine.rpc.client import WebWorkerMLCEngine, create_web_worker_mlc_engine
    from py_engine.rpc.extension_client import (
        ExtensionServiceWorkerMLCEngine,
        create_extension_service_worker_mlc_engine,
    )
    from py_engine.rpc.extension_handler import ExtensionServiceWorkerMLCEngineHandler
    from py_engine.rpc.handler import WebWorkerMLCEngineHandler
    from py_engine.rpc.service_worker_client import (
        ServiceWorkerMLCEngine,
        create_service_worker_mlc_engine,
    )
    from py_engine.rpc.service_worker_handler import ServiceWorkerMLCEngineHandler
    from py_engine.rpc.transport_service_worker import register_service_worker

__version__ = "0.1.0"

__all__ = [
    "AbortController",
    "AbortSignal",
    "ApiObject",
    "AppConfig",
    "ExtensionServiceWorkerMLCEngine",
    "ExtensionServiceWorkerMLCEngineHandler",
    "HuggingFaceConfig",
    "InitProgressReport",
    "MLCEngine",
    "MLCEngineConfig",
    "MLCError",
    "ModelIntegrity",
    "ModelRecord",
    "ModelType",
    "ServiceWorkerMLCEngine",
    "ServiceWorkerMLCEngineHandler",
    "WebWorkerMLCEngine",
    "WebWorkerMLCEngineHandler",
    "__version__",
    "create_extension_service_worker_mlc_engine",
    "create_mlc_engine",
    "create_service_worker_mlc_engine",
    "create_web_worker_mlc_engine",
    "delete_chat_config_in_cache",
    "delete_model_all_info_in_cache",
    "delete_model_in_cache",
    "delete_model_wasm_in_cache",
    "has_model_in_cache",
    "is_valid_sri",
    "list_models_in_cache",
    "prebuilt_app_config",
    "register_service_worker",
    "verify_integrity",
]

_MODULE_OF = {
    "AbortController": "py_engine.abort",
    "AbortSignal": "py_engine.abort",
    "ApiObject": "py_engine.api.objects",
    "AppConfig": "py_engine.config",
    "ExtensionServiceWorkerMLCEngine": "py_engine.rpc.extension_client",
    "ExtensionServiceWorkerMLCEngineHandler": "py_engine.rpc.extension_handler",
    "HuggingFaceConfig": "py_engine.config",
    "InitProgressReport": "py_engine.config",
    "MLCEngine": "py_engine.engine",
    "MLCEngineConfig": "py_engine.config",
    "MLCError": "py_engine.errors",
    "ModelIntegrity": "py_engine.integrity",
    "ModelRecord": "py_engine.config",
    "ModelType": "py_engine.config",
    "ServiceWorkerMLCEngine": "py_engine.rpc.service_worker_client",
    "ServiceWorkerMLCEngineHandler": "py_engine.rpc.service_worker_handler",
    "WebWorkerMLCEngine": "py_engine.rpc.client",
    "WebWorkerMLCEngineHandler": "py_engine.rpc.handler",
    "create_extension_service_worker_mlc_engine": "py_engine.rpc.extension_client",
    "create_mlc_engine": "py_engine.engine",
    "create_service_worker_mlc_engine": "py_engine.rpc.service_worker_client",
    "create_web_worker_mlc_engine": "py_engine.rpc.client",
    "delete_chat_config_in_cache": "py_engine.model_cache",
    "delete_model_all_info_in_cache": "py_engine.model_cache",
    "delete_model_in_cache": "py_engine.model_cache",
    "delete_model_wasm_in_cache": "py_engine.model_cache",
    "has_model_in_cache": "py_engine.model_cache",
    "is_valid_sri": "py_engine.integrity",
    "list_models_in_cache": "py_engine.model_cache",
    "prebuilt_app_config": "py_engine.config",
    "register_service_worker": "py_engine.rpc.transport_service_worker",
    "verify_integrity": "py_engine.integrity",
}


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        if sys.implementation.name == "micropython" and not name.startswith("_"):
            # It asks here first when it meets `from py_engine import errors`.
            __import__("py_engine." + name)
            return sys.modules["py_engine." + name]
        raise AttributeError("module 'py_engine' has no attribute '" + name + "'")
    __import__(module)
    value: object = getattr(sys.modules[module], name)
    globals()[name] = value
    return value
