"""Whether a model's KV cache fits the GPU, asked before anything large is downloaded."""

from __future__ import annotations

from py_engine.errors import LimitSupportError
from py_engine.gpu.types import Limits
from py_engine.models.spec import DecoderSpec


def require_cache_fits(spec: DecoderSpec, limits: Limits) -> None:
    """Raise LimitSupportError unless one layer's keys fit into one buffer of the GPU.

    The text names the longest window that would fit.
    """
    shape, window = spec.attention, spec.window
    most = min(limits.max_storage_buffer_binding_size, limits.max_buffer_size) // 16 * 16
    if shape.cache_bytes <= most:
        return
    slots_that_fit = most * shape.slots // shape.cache_bytes
    if window is None:
        field, size, longest = "context_window_size", shape.context, slots_that_fit
    else:
        field, size = "sliding_window_size", window.size
        longest = slots_that_fit - (shape.slots - size)
    remedy = "Choose"
    if longest > 0:
        remedy = f"Set {field} to at most {longest} in chat_opts, or choose"
    raise LimitSupportError(
        f"{field} {size} needs {shape.cache_bytes:,} bytes for the keys of one layer, but a buffer "
        f"of this GPU has at most {most:,}. {remedy} a model with fewer or smaller KV heads."
    )
