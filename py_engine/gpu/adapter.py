"""Finding the browser's GPU: adapter, features and limits, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import js
from pyodide.ffi import to_js

from py_engine import errors
from py_engine.gpu.browser_gpu import BrowserGpu
from py_engine.gpu.memory import default_memory_limit
from py_engine.gpu.pipelines import LIMITS
from py_engine.gpu.types import INT8_DOT, AdapterInfo
from py_engine.gpu.webgpu import WebGPUDevice

_OPTIONAL_FEATURES = ("shader-f16", "subgroups", "timestamp-query")


async def request_device(
    required_features: Iterable[str] = (), memory_limit: int | None = None
) -> WebGPUDevice:
    """Ask the browser for its fastest GPU, with every optional feature and all it can bind.

    Its buffers may take `memory_limit` bytes together, by default what the machine's memory allows.
    Raises WebGPUNotAvailableError, WebGPUNotFoundError, or FeatureSupportError for a feature in
    `required_features` that the adapter lacks.
    """
    gpu = await _request_gpu(required_features)
    return WebGPUDevice(gpu, _limited(memory_limit))


class GpuKeeper:
    """Gives out one device after the other, all on one GPU as long as nothing goes wrong on it.

    What was compiled for one model is there for the next, which may have the same kernels.
    """

    def __init__(self) -> None:
        self._gpu: BrowserGpu | None = None

    async def request_device(
        self, required_features: Iterable[str] = (), memory_limit: int | None = None
    ) -> WebGPUDevice:
        """Return a device as the function `request_device` does."""
        gpu = self._gpu
        if gpu is not None and not gpu.is_sound:
            self._gpu = None
            gpu.destroy()
        if self._gpu is None:
            self._gpu = await _request_gpu(required_features)
        else:
            check_features(required_features, self._gpu.features, self._gpu.info.vendor)
        return WebGPUDevice(self._gpu, _limited(memory_limit), keeps_gpu=True)


def _limited(memory_limit: int | None) -> int | None:
    if memory_limit is not None:
        return memory_limit
    return default_memory_limit(getattr(js.navigator, "deviceMemory", None))


async def _request_gpu(required_features: Iterable[str]) -> BrowserGpu:
    gpu = getattr(js.navigator, "gpu", None)
    if gpu is None:
        raise errors.WebGPUNotAvailableError(
            "This browser has no WebGPU (`navigator.gpu` is missing). Use Chrome or Edge 121 or"
            " later, Safari 26 or Firefox 141, over https or on localhost."
        )
    adapter = await gpu.requestAdapter(powerPreference="high-performance")
    if not adapter:
        raise errors.WebGPUNotFoundError(
            "WebGPU is there, but gives no adapter. Update the graphics driver, see chrome://gpu,"
            " and check that hardware acceleration is on in the browser's settings."
        )
    offered = {str(feature) for feature in adapter.features.keys()}
    check_features(required_features, offered, str(adapter.info.vendor))
    features = [feature for feature in _OPTIONAL_FEATURES if feature in offered]
    limits = {name: getattr(adapter.limits, name) for name in LIMITS.values()}
    device = await adapter.requestDevice(
        to_js({"requiredFeatures": features, "requiredLimits": limits, "label": "pywebllm"})
    )
    return BrowserGpu(device, _adapter_info(gpu, adapter, features), frozenset(features))


def check_features(required: Iterable[str], offered: Iterable[str], vendor: str) -> None:
    """Raise FeatureSupportError, for f16 ShaderF16SupportError, unless all are offered."""
    offered = set(offered)
    for feature in required:
        if feature not in offered:
            error = (
                errors.ShaderF16SupportError
                if feature == "shader-f16"
                else errors.FeatureSupportError
            )
            raise error(
                f"The model requires the WebGPU feature '{feature}', which this GPU"
                f" ({vendor or 'unknown'}) does not offer. Choose a model without it: q4f32_1"
                " builds need no features."
            )


def _adapter_info(gpu: Any, adapter: Any, features: Sequence[str]) -> AdapterInfo:
    info = adapter.info
    has_subgroups = "subgroups" in features and gpu.wgslLanguageFeatures.has("subgroup_id")
    return AdapterInfo(
        vendor=str(info.vendor),
        architecture=str(info.architecture),
        device=str(info.device),
        description=str(info.description),
        is_fallback=bool(getattr(info, "isFallbackAdapter", False)),
        subgroup_size_max=int(info.subgroupMaxSize) if has_subgroups else None,
        has_f16="shader-f16" in features,
        has_int8_dot=bool(gpu.wgslLanguageFeatures.has(INT8_DOT)),
    )
