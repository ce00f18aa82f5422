"""The device in NumPy, under the name that tests know it by."""

from py_engine.kernels.numpy_device import (
    NumpyBuffer,
    NumpyChain,
    NumpyDevice,
    NumpyKernel,
    NumpyProgram,
    binding_view,
)

__all__ = [
    "NumpyBuffer",
    "NumpyChain",
    "NumpyDevice",
    "NumpyKernel",
    "NumpyProgram",
    "binding_view",
]
