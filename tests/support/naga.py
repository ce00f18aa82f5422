"""Runs kernels outside of a browser: by wgpu-native, with another compiler of WGSL (Naga).

SwiftShader has no f16, and subgroups of four lanes. With the package `wgpu`, and Mesa's llvmpipe
where there is no GPU, kernels can be tested that need f16 or larger subgroups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.wgsl import SUBGROUP_DIRECTIVES
from tests.kernels.cases import RunKernel


def kernel_runner(feature: str) -> RunKernel | None:
    """Return what dispatches kernels on an adapter with a feature, in wgpu's name.

    None where `wgpu` or such an adapter is missing.
    """
    try:
        import wgpu
    except ImportError:
        return None
    for adapter in wgpu.gpu.enumerate_adapters_sync():
        if feature in adapter.features:
            return partial(_run, adapter.request_device_sync(required_features=[feature]))
    return None


def _run(
    device: Any, spec: KernelSpec, buffers: Mapping[str, bytes], n_tokens: int
) -> dict[str, bytes]:
    """Dispatch a kernel over copies of `buffers`; return those that it may write."""
    made = {
        name: device.create_buffer_with_data(data=data, usage="STORAGE | COPY_SRC | COPY_DST")
        for name, data in buffers.items()
    }
    module = device.create_shader_module(code=_known_to_naga(spec).source)
    pipeline = device.create_compute_pipeline(
        layout="auto", compute={"module": module, "entry_point": "main"}
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


def _known_to_naga(spec: KernelSpec) -> KernelSpec:
    """Leave out the directives of subgroups, which Naga has without them."""
    lines = spec.source.split("\n")
    kept = (line for line in lines if line not in SUBGROUP_DIRECTIVES)
    return replace(spec, source="\n".join(kept))
