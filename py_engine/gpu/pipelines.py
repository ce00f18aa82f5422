"""Compiles kernels for one device of the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import js
from pyodide.ffi import JsException, to_js

from py_engine import errors
from py_engine.gpu.types import Access, Binding, KernelSpec, Limits

LIMITS = {
    "max_buffer_size": "maxBufferSize",
    "max_storage_buffer_binding_size": "maxStorageBufferBindingSize",
    "max_compute_workgroup_storage_size": "maxComputeWorkgroupStorageSize",
    "max_compute_invocations_per_workgroup": "maxComputeInvocationsPerWorkgroup",
    "max_compute_workgroup_size_x": "maxComputeWorkgroupSizeX",
    "max_storage_buffers_per_shader_stage": "maxStorageBuffersPerShaderStage",
    "max_compute_workgroups_per_dimension": "maxComputeWorkgroupsPerDimension",
}
"""The browser's names of `gpu.types.Limits`."""


class WebGPUKernel:
    """A kernel whose `handle` gets a pipeline from the task `compiling`, and its bindings' layout.

    The task raises ShaderCompilationError and DeviceLostError.
    """

    def __init__(self, spec: KernelSpec, compiling: _Compiling) -> None:
        self.spec = spec
        self.handle = compiling.handle
        self.layout = compiling.layout
        self.compiling = compiling.task


@dataclass(frozen=True)
class _Compiling:
    """What kernels with the same source share; the task brings the handle its pipeline."""

    handle: Any
    layout: Any
    task: asyncio.Task[None]


class PipelineCompiler:
    """Makes pipelines and the bind group layouts that they share, and keeps them.

    `require_alive` raises DeviceLostError once the device is lost.
    """

    def __init__(self, handle: Any, limits: Limits, require_alive: Callable[[], None]) -> None:
        self._handle = handle
        self._limits = limits
        self._require_alive = require_alive
        self._layouts: dict[tuple[Access, ...], Any] = {}
        self._compiling: dict[_Key, _Compiling] = {}

    def begin(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None
    ) -> list[WebGPUKernel]:
        """Begin to compile kernels; see `gpu.types.Device.begin_compile`."""
        unique = {_key(spec): spec for spec in specs}
        found = {key: self._begin(key, spec) for key, spec in unique.items()}
        n_done = 0

        def on_done(task: asyncio.Task[None]) -> None:
            nonlocal n_done
            if on_progress and not task.cancelled() and task.exception() is None:
                n_done += 1
                on_progress(n_done, len(unique))

        for compiling in found.values():
            compiling.task.add_done_callback(on_done)
        return [WebGPUKernel(spec, found[_key(spec)]) for spec in specs]

    def _begin(self, key: _Key, spec: KernelSpec) -> _Compiling:
        if key not in self._compiling:
            handle, layout = js.Object.new(), self._bind_group_layout(spec.bindings)
            task = asyncio.ensure_future(self._compile(spec, handle, layout))
            self._compiling[key] = _Compiling(handle, layout, task)
            task.add_done_callback(lambda task: self._forget_failed(key, task))
        return self._compiling[key]

    def _forget_failed(self, key: _Key, task: asyncio.Task[None]) -> None:
        """Let the next one who asks for the kernel try again."""
        if task.cancelled() or task.exception() is not None:
            del self._compiling[key]

    async def _compile(self, spec: KernelSpec, handle: Any, layout: Any) -> None:
        # A bad module is told by its pipeline; the scope keeps it from a `check` of other work.
        self._handle.pushErrorScope("validation")
        module = self._handle.createShaderModule(code=spec.source, label=spec.label)
        self._handle.popErrorScope()
        descriptor = {
            "label": spec.label,
            "layout": self._handle.createPipelineLayout(
                bindGroupLayouts=to_js([layout]), label=spec.label
            ),
            "compute": {"module": module, "entryPoint": "main"},
        }
        try:
            handle.pipeline = await self._handle.createComputePipelineAsync(to_js(descriptor))
        except JsException as error:
            self._require_alive()
            raise await _compilation_error(spec, module, error) from error

    def _bind_group_layout(self, bindings: Sequence[Binding]) -> Any:
        accesses = tuple(binding.access for binding in bindings)
        if accesses not in self._layouts:
            most = self._limits.max_storage_buffers_per_shader_stage
            n_storage = sum(access != "uniform" for access in accesses)
            if n_storage > most:
                raise errors.LimitSupportError(
                    f"A kernel needs {n_storage} storage buffers, but this GPU's"
                    f" maxStorageBuffersPerShaderStage is {most}."
                )
            kinds = {"read": "read-only-storage", "read_write": "storage", "uniform": "uniform"}
            entries = [
                {
                    "binding": index,
                    "visibility": js.GPUShaderStage.COMPUTE,
                    "buffer": {"type": kinds[access]},
                }
                for index, access in enumerate(accesses)
            ]
            self._layouts[accesses] = self._handle.createBindGroupLayout(
                to_js({"entries": entries, "label": " ".join(accesses)})
            )
        return self._layouts[accesses]


_Key = tuple[str, tuple[Binding, ...]]


def _key(spec: KernelSpec) -> _Key:
    """Return what kernels with one pipeline have in common."""
    return spec.source, spec.bindings


async def _compilation_error(
    spec: KernelSpec, module: Any, error: JsException
) -> errors.ShaderCompilationError:
    lines = spec.source.splitlines()
    found = [f"Kernel '{spec.label}' does not compile: {error.message}"]
    for message in (await module.getCompilationInfo()).messages:
        if message.type == "error" and 0 < message.lineNum <= len(lines):
            line = lines[message.lineNum - 1].strip()
            found.append(f"line {message.lineNum}: {message.message}\n    {line}")
    return errors.ShaderCompilationError("\n".join(found))
