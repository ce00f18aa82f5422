"""The browser's GPUDevice and what was compiled for it, which may outlive the models on it."""

from __future__ import annotations

import asyncio
from typing import Any

import js
import pywebllm_bridge as bridge
from pyodide.ffi import JsException, create_once_callable, create_proxy

from py_engine import errors
from py_engine.gpu.pipelines import LIMITS, PipelineCompiler
from py_engine.gpu.types import AdapterInfo, Limits


class BrowserGpu:
    """A GPUDevice, `handle`, with its pipelines and staging buffers.

    `lost` has the reason once the browser has lost it. `is_sound` is whether it can take another
    model: not after an error, which may have left the GPU's memory or its error scopes in disorder.
    """

    def __init__(self, handle: Any, info: AdapterInfo, features: frozenset[str]) -> None:
        self.handle = handle
        self.info = info
        self.features = features
        self.limits = Limits(
            **{name: int(getattr(handle.limits, js_name)) for name, js_name in LIMITS.items()}
        )
        self.ring = bridge.ReadbackRing.new(handle)
        self.compiler = PipelineCompiler(handle, self.limits, self.require_alive)
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._failed = False
        handle.lost.then(create_once_callable(self._on_lost))
        self._on_error = create_proxy(self._report_uncaptured)
        handle.addEventListener("uncapturederror", self._on_error)

    @property
    def is_sound(self) -> bool:
        return not self._failed and not self.lost.done()

    def note_failure(self) -> None:
        """Something went wrong on it: `is_sound` is False from now on."""
        self._failed = True

    def require_alive(self) -> None:
        """Raise DeviceLostError when the device is lost: WebGPU itself would fail silently."""
        if self.lost.done():
            raise lost_error(self.lost.result())

    def read_failure(self, error: JsException) -> errors.DeviceError:
        """Return what to raise for an error of mapping a buffer."""
        self.note_failure()
        # A lost device aborts what is being mapped, sometimes before it says that it is lost.
        if self.lost.done() or error.name == "AbortError":
            return lost_error(self.lost.result() if self.lost.done() else "")
        return errors.ValidationError(f"Reading from the GPU failed: {error.message}")

    def destroy(self) -> None:
        """Free the device and all that is on it."""
        self.handle.removeEventListener("uncapturederror", self._on_error)
        self._on_error.destroy()
        self.handle.destroy()

    def _on_lost(self, info: Any) -> None:
        if not self.lost.done():
            self.lost.set_result(f"{info.reason}: {info.message}")

    def _report_uncaptured(self, event: Any) -> None:
        self.note_failure()
        js.console.error(f"WebGPU error outside of any check: {event.error.message}")


def lost_error(reason: str) -> errors.DeviceLostError:
    """Return the error of work on a lost device."""
    because = f" ({reason})" if reason else ""
    return errors.DeviceLostError(
        f"The GPU device was lost{because}. This is often a lack of GPU memory: reload the"
        " model, or choose a smaller one or a smaller context_window_size."
    )


def reported_error(error: Any, what: str) -> errors.DeviceError:
    """Return the engine's error for a GPUError that came while doing `what`."""
    text = f"The GPU refused while {what}: {error.message}"
    if error.constructor.name == "GPUOutOfMemoryError":
        return errors.OutOfMemoryError(
            f"{text} The GPU's memory is full: close other tabs, or choose a smaller model or"
            " context_window_size."
        )
    return errors.ValidationError(text)
