"""Attention with RoPE and an f16 KV cache of one sequence.

Shapes: qkv f32 (tokens, heads + 2 kv_heads, head_dim), queries first, then keys, then values;
k_cache and v_cache f16 (kv_heads, context, head_dim); output f32 (tokens, heads, head_dim). RoPE
rotates the pairs (i, i + head_dim / 2), as Hugging Face's Llama does. Softmax in f32, online.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import cos, sin

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.wgsl import STATE, STATE_WORDS, kernel_spec

_WORKGROUP = 64
_ROPE_FINE_BITS = 6


def rope_table(inv_freq: Sequence[float], context: int) -> array[float]:
    """Return cos and sin of position * frequency for the coarse, then the fine positions, as f32.

    Shape (coarse + fine rows, 2, head_dim / 2): row r of the coarse part is position 64 r, row r of
    the fine part is position r; any position's angle is the sum of one of each.
    """
    fine = 1 << _ROPE_FINE_BITS
    positions = [*range(0, context, fine), *range(fine)]
    table = array("f")
    for position in positions:
        table.extend(cos(position * frequency) for frequency in inv_freq)
        table.extend(sin(position * frequency) for frequency in inv_freq)
    return table


def _constants(
    n_heads: int, n_kv_heads: int, head_dim: int, context: int
) -> dict[str, int | float | bool | str]:
    return {
        "N_HEADS": n_heads,
        "N_KV_HEADS": n_kv_heads,
        "HEAD_DIM": head_dim,
        "CONTEXT": context,
        "WORKGROUP": _WORKGROUP,
        "SCALE": head_dim**-0.5,
        "ROPE_FINE_BITS": _ROPE_FINE_BITS,
        "ROPE_COARSE": -(-context >> _ROPE_FINE_BITS),
        **STATE_WORDS,
    }


def _buffers(
    n_heads: int, n_kv_heads: int, head_dim: int, context: int, max_tokens: int
) -> dict[str, str]:
    """Return the WGSL type of every buffer that these kernels share."""
    rope_rows = -(-context >> _ROPE_FINE_BITS) + (1 << _ROPE_FINE_BITS)
    cache = f"array<vec2u, {n_kv_heads * context * head_dim // 4}>"
    return {
        "qkv": f"array<vec4f, {max_tokens * (n_heads + 2 * n_kv_heads) * head_dim // 4}>",
        "rope": f"array<vec4f, {rope_rows * head_dim // 4}>",
        "k_cache": cache,
        "v_cache": cache,
        "output": f"array<vec4f, {max_tokens * n_heads * head_dim // 4}>",
    }


def attention_decode(
    label: str, n_heads: int, n_kv_heads: int, head_dim: int, context: int
) -> KernelSpec:
    """Build the attention of one token: RoPE, append to the cache at `state`'s position, attend."""
    types = _buffers(n_heads, n_kv_heads, head_dim, context, 1)
    return kernel_spec(
        "attention_decode",
        label,
        snippets=("halfs", "rope", "attention_decode"),
        bindings=(
            Binding("qkv", "read", types["qkv"]),
            Binding("rope", "read", types["rope"]),
            STATE,
            Binding("k_cache", "read_write", types["k_cache"]),
            Binding("v_cache", "read_write", types["v_cache"]),
            Binding("output", "read_write", types["output"]),
        ),
        constants=_constants(n_heads, n_kv_heads, head_dim, context),
        groups_x=n_kv_heads,
    )


def rope_append(
    label: str, n_heads: int, n_kv_heads: int, head_dim: int, context: int, max_tokens: int
) -> KernelSpec:
    """Build the first half of prefill attention: rotate q in place, write k and v to the cache."""
    types = _buffers(n_heads, n_kv_heads, head_dim, context, max_tokens)
    units = (n_heads + 2 * n_kv_heads) * head_dim // 8
    return kernel_spec(
        "rope_append",
        label,
        snippets=("halfs", "rope", "rope_append"),
        bindings=(
            Binding("qkv", "read_write", types["qkv"]),
            Binding("rope", "read", types["rope"]),
            STATE,
            Binding("k_cache", "read_write", types["k_cache"]),
            Binding("v_cache", "read_write", types["v_cache"]),
        ),
        constants=_constants(n_heads, n_kv_heads, head_dim, context),
        groups_x=-(-units // _WORKGROUP),
        tokens_per_group=1,
    )


def attention_prefill(
    label: str, n_heads: int, n_kv_heads: int, head_dim: int, context: int, max_tokens: int
) -> KernelSpec:
    """Build the second half: causal attention of the chunk over everything in the cache."""
    types = _buffers(n_heads, n_kv_heads, head_dim, context, max_tokens)
    return kernel_spec(
        "attention_prefill",
        label,
        snippets=("halfs", "attention_prefill"),
        bindings=(
            Binding("qkv", "read", types["qkv"]),
            STATE,
            Binding("k_cache", "read", types["k_cache"]),
            Binding("v_cache", "read", types["v_cache"]),
            Binding("output", "read_write", types["output"]),
        ),
        constants=_constants(n_heads, n_kv_heads, head_dim, context),
        groups_x=n_heads,
        tokens_per_group=_WORKGROUP,
    )
