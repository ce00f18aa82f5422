"""Compiles kernels for one device of the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
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
    """A compiled pipeline with the layout of its bindings."""

    def __init__(self, spec: KernelSpec, pipeline: Any, layout: Any) -> None:
        self.spec = spec
        self.pipeline = pipeline
        self.layout = layout


class PipelineCompiler:
    """Makes pipelines and the bind group layouts that they share, and keeps them.

    `require_alive` raises DeviceLostError once the device is lost.
    """

    def __init__(self, handle: Any, limits: Limits, require_alive: Callable[[], None]) -> None:
        self._handle = handle
        self._limits = limits
        self._require_alive = require_alive
        self._layouts: dict[tuple[Access, ...], Any] = {}
        self._pipelines: dict[tuple[str, tuple[Binding, ...]], tuple[Any, Any]] = {}

    async def compile(
        self, specs: Sequence[KernelSpec], on_progress: Callable[[int, int], None] | None
    ) -> list[WebGPUKernel]:
        """Compile kernels concurrently; see `gpu.types.Device.compile`."""
        unique = {(spec.source, spec.bindings): spec for spec in specs}
        done = 0

        async def compile_one(key: tuple[str, tuple[Binding, ...]], spec: KernelSpec) -> None:
            nonlocal done
            if key not in self._pipelines:
                self._pipelines[key] = await self._create_pipeline(spec)
            done += 1
            if on_progress:
                on_progress(done, len(unique))

        await asyncio.gather(*(compile_one(key, spec) for key, spec in unique.items()))
        return [WebGPUKernel(spec, *self._pipelines[spec.source, spec.bindings]) for spec in specs]

    async def _create_pipeline(self, spec: KernelSpec) -> tuple[Any, Any]:
        layout = self._bind_group_layout(spec.bindings)
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
            return await self._handle.createComputePipelineAsync(to_js(descriptor)), layout
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
