"""Runs kernels outside of a browser: by wgpu-native, with another compiler of WGSL (Naga).

SwiftShader has no f16. With the package `wgpu`, and Mesa's llvmpipe where there is no GPU, kernels
in f16 can be tested without a browser that has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from py_engine.gpu.types import KernelSpec

_SHADER_F16 = "shader-f16"


def f16_device() -> Any:
    """Return a device that computes in f16; None where `wgpu` or such an adapter is missing."""
    try:
        import wgpu
    except ImportError:
        return None
    for adapter in wgpu.gpu.enumerate_adapters_sync():
        if _SHADER_F16 in adapter.features:
            return adapter.request_device_sync(required_features=[_SHADER_F16])
    return None


def run_on(
    device: Any, spec: KernelSpec, buffers: Mapping[str, bytes], n_tokens: int
) -> dict[str, bytes]:
    """Dispatch a kernel over copies of `buffers`; return those that it may write."""
    made = {
        name: device.create_buffer_with_data(data=data, usage="STORAGE | COPY_SRC | COPY_DST")
        for name, data in buffers.items()
    }
    pipeline = device.create_compute_pipeline(
        layout="auto",
        compute={"module": device.create_shader_module(code=spec.source), "entry_point": "main"},
    )
    entries = [
        {"binding": number, "resource": {"buffer": made[binding.name]}}
        for number, binding in enumerate(spec.bindings)
    ]
    group = device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
    encoder = device.create_command_encoder()
    compute = encoder.begin_compute_pass()
    compute.set_pipeline(pipeline)
    compute.set_bind_group(0, group)
    compute.dispatch_workgroups(*spec.workgroups(n_tokens))
    compute.end()
    device.queue.submit([encoder.finish()])
    written = (binding.name for binding in spec.bindings if binding.access == "read_write")
    return {name: bytes(device.queue.read_buffer(made[name])) for name in written}
