"""Whether the GPU can hold a model's KV cache and attend to it, asked before a large download."""

from __future__ import annotations

from py_engine.errors import LimitSupportError
from py_engine.gpu.types import Limits
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.delta import DeltaShape
from py_engine.models.spec import DecoderSpec


def most_cache_bytes(limits: Limits) -> int:
    """Return the most bytes that one buffer of a KV cache can have."""
    return min(limits.max_storage_buffer_binding_size, limits.max_buffer_size) // 16 * 16


def require_attention_fits(spec: DecoderSpec, limits: Limits) -> None:
    """Raise LimitSupportError unless every layer's keys and attention fit the GPU's limits.

    Where a shorter window would fit, the text names the longest one.
    """
    for shape in {spec.attention(layer) for layer in spec.attention_layers.values()}:
        _require_cache_fits(shape, most_cache_bytes(limits))
        _require_workgroup_fits(shape, limits.max_compute_workgroup_storage_size)
    if spec.delta is not None:
        _require_delta_fits(spec.delta, limits)


def _require_cache_fits(shape: AttentionShape, most: int) -> None:
    part = shape.parts(most)[0]
    if part.cache_bytes <= most:
        return
    slots_that_fit, window = most // part.slot_bytes, shape.window
    if window is None or shape.slots == shape.context:
        field, size, longest = "context_window_size", shape.context, slots_that_fit
    else:
        field, size = "sliding_window_size", window.size
        longest = slots_that_fit - (shape.slots - size)
    remedy = "Choose"
    if longest > 0:
        remedy = f"Set {field} to at most {longest} in chat_opts, or choose"
    raise LimitSupportError(
        f"{field} {size} needs {part.cache_bytes:,} bytes for the keys of one KV head of a layer, "
        f"but a buffer of this GPU has at most {most:,}. {remedy} a model with smaller heads."
    )


def _require_workgroup_fits(shape: AttentionShape, most: int) -> None:
    if shape.workgroup_bytes <= most:
        return
    has_sinks = shape.window is not None and shape.window.sinks > 0
    remedy = "Set attention_sink_size to 0 in chat_opts, or choose" if has_sinks else "Choose"
    raise LimitSupportError(
        f"Attention with {shape.n_heads} heads of {shape.head_dim} over {shape.n_kv_heads} KV heads"
        f"{' and with sinks' if has_sinks else ''} needs {shape.workgroup_bytes:,} bytes of "
        f"workgroup memory, but this GPU has {most:,}. {remedy} a model with fewer heads for each "
        "KV head."
    )


def _require_delta_fits(shape: DeltaShape, limits: Limits) -> None:
    needed, most = shape.workgroup_bytes, limits.max_compute_workgroup_storage_size
    what = "workgroup memory"
    if needed <= most:
        needed, most = shape.memory_bytes, most_cache_bytes(limits)
        what = "a buffer for its memory"
    if needed > most:
        raise LimitSupportError(
            f"Linear attention with {shape.n_value_heads} heads of {shape.key_dim} by "
            f"{shape.value_dim} needs {needed:,} bytes of {what}, but this GPU has at most "
            f"{most:,}. Choose a model with smaller linear_key_head_dim and linear_value_head_dim."
        )
