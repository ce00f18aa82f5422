"""How much memory a device's buffers may take together, where that is known.

WebGPU does not tell how much memory a GPU has, and a browser that runs out of it may lose the
device with every model on it. So a limit, if there is one, holds for all buffers of a device.
"""

from __future__ import annotations

from collections.abc import Iterable

from py_engine.errors import OutOfMemoryError
from py_engine.gpu.types import Buffer, Device

_LARGEST_TOLD_GIB = 8
"""Browsers tell no more than this of a machine's memory: at least so much may be there."""


def default_memory_limit(device_memory_gib: float | None) -> int | None:
    """Return the bytes of buffers that are safe to have on a machine; None where it is not known.

    `device_memory_gib` is `navigator.deviceMemory`, the machine's memory in GiB, rounded. A machine
    with little of it, a phone, has no other memory for its GPU.
    """
    if device_memory_gib is None or device_memory_gib >= _LARGEST_TOLD_GIB:
        return None
    return int(device_memory_gib * 2**30)


def free_memory(device: Device) -> int | None:
    """Return the bytes that more buffers of a device may take; None without a limit."""
    if device.memory_limit is None:
        return None
    return max(0, device.memory_limit - device.memory.nbytes)


def require_memory(device: Device, nbytes: int, label: str) -> None:
    """Raise OutOfMemoryError unless a buffer of `nbytes` is within the device's limit."""
    free = free_memory(device)
    if free is not None and nbytes > free:
        raise OutOfMemoryError(
            f"Buffer '{label}' needs {nbytes:,} bytes, but of the {device.memory_limit:,} that the "
            f"GPU's buffers may take {free:,} are free. Unload another model, use a smaller one or "
            "a smaller context_window_size, or raise gpuMemoryLimitMB in the AppConfig."
        )


def destroy_buffers(buffers: Iterable[Buffer]) -> None:
    """Free buffers."""
    for buffer in buffers:
        buffer.destroy()
