"""A model's parameters as NumPy arrays, from files of any kind, one at a time.

They are loaded as onto a GPU, but by the kernels' references, and unpacked from there: what a
conversion reads is what a model computes with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from py_engine.gpu.types import Limits
from py_engine.kernels.numpy_device import NumpyBuffer, NumpyDevice
from py_engine.kernels.reference_formats import matrix_values
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.layouts import part_buffers
from py_engine.weights.loader import load_weights
from py_engine.weights.parameters import MatrixParameter, NameTable, Parameter
from py_engine.weights.plan import plan_weights
from py_engine.weights.quantization import F32

_UNLIMITED = Limits(max_buffer_size=1 << 62, max_storage_buffer_binding_size=1 << 62)


@dataclass(frozen=True)
class HostWeights:
    """The parameters of `checkpoint`, whose tensors `names` gives by role."""

    checkpoint: Checkpoint
    names: NameTable

    async def read(self, parameter: Parameter) -> F32:
        """Return a matrix as f32 (rows, columns), a vector as f32 (size,).

        Raises the errors of `plan_weights` and `load_weights`.
        """
        device = NumpyDevice()
        plan = plan_weights(self.checkpoint, [parameter], self.names, _UNLIMITED)
        source = self.checkpoint.source
        buffers = await load_weights(device, source, plan, lambda done, total: None)
        exact = {
            name: cast(NumpyBuffer, buffer).view(np.uint8)[: plan.buffers[name]]
            for name, buffer in buffers.items()
        }
        if not isinstance(parameter, MatrixParameter):
            return exact[parameter.role].view(np.float32)
        parts = []
        for number, part in enumerate(plan.layouts[parameter.role]):
            names = part_buffers(parameter.role, number, part)
            arrays = {binding: exact[name] for binding, name in names.items()}
            parts.append(matrix_values(part.format, part.rows, parameter.columns, arrays))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
