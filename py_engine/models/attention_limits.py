"""Whether the GPU can hold a model's KV cache and attend to it, asked before a large download."""

from __future__ import annotations

from py_engine.errors import LimitSupportError
from py_engine.gpu.types import Limits
from py_engine.models.spec import DecoderSpec


def require_attention_fits(spec: DecoderSpec, limits: Limits) -> None:
    """Raise LimitSupportError unless a layer's keys and its attention fit the GPU's limits.

    Where a shorter window would fit, the text names the longest one.
    """
    _require_cache_fits(spec, limits)
    _require_workgroup_fits(spec, limits)


def _require_cache_fits(spec: DecoderSpec, limits: Limits) -> None:
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


def _require_workgroup_fits(spec: DecoderSpec, limits: Limits) -> None:
    shape, most = spec.attention, limits.max_compute_workgroup_storage_size
    if shape.workgroup_bytes <= most:
        return
    has_sinks = spec.window is not None and spec.window.sinks > 0
    remedy = "Set attention_sink_size to 0 in chat_opts, or choose" if has_sinks else "Choose"
    raise LimitSupportError(
        f"Attention with {spec.n_heads} heads of {spec.head_dim} over {spec.n_kv_heads} KV heads"
        f"{' and with sinks' if has_sinks else ''} needs {shape.workgroup_bytes:,} bytes of "
        f"workgroup memory, but this GPU has {most:,}. {remedy} a model with fewer heads for each "
        "KV head."
    )
