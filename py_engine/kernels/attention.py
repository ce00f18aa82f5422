"""Attention with RoPE and an f16 KV cache of one sequence.

Shapes: qkv f32 (tokens, heads + 2 kv_heads, head_dim), queries first, then keys, then values;
k_cache and v_cache f16 (kv_heads, context, head_dim); output f32 (tokens, heads, head_dim). RoPE
rotates the pairs (i, i + head_dim / 2), as Hugging Face's Llama does. Softmax in f32, online.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, sin
from typing import Literal

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.wgsl import STATE, STATE_WORDS, kernel_spec

HEAD_DIM_MULTIPLE = 8
"""RoPE turns four pairs (i, i + head_dim / 2) at a time, so each half is a multiple of four."""

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


@dataclass(frozen=True)
class AttentionShape:
    """Heads of a layer and the positions that its cache has room for."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    context: int

    @property
    def qkv_heads(self) -> int:
        """Heads in a row of the fused projection."""
        return self.n_heads + 2 * self.n_kv_heads

    def constants(self) -> dict[str, int | float | bool | str]:
        """Return the constants of all kernels here."""
        return {
            "N_HEADS": self.n_heads,
            "N_KV_HEADS": self.n_kv_heads,
            "HEAD_DIM": self.head_dim,
            "CONTEXT": self.context,
            "WORKGROUP": _WORKGROUP,
            "SCALE": self.head_dim**-0.5,
            "ROPE_FINE_BITS": _ROPE_FINE_BITS,
            "ROPE_COARSE": -(-self.context >> _ROPE_FINE_BITS),
            **STATE_WORDS,
        }

    def bindings(
        self, max_tokens: int, access: Mapping[str, Literal["read", "read_write"]]
    ) -> tuple[Binding, ...]:
        """Return the buffers that `access` names, in its order."""
        rope_rows = -(-self.context >> _ROPE_FINE_BITS) + (1 << _ROPE_FINE_BITS)
        cache = f"array<vec2u, {self.n_kv_heads * self.context * self.head_dim // 4}>"
        types = {
            "qkv": f"array<vec4f, {max_tokens * self.qkv_heads * self.head_dim // 4}>",
            "rope": f"array<vec4f, {rope_rows * self.head_dim // 4}>",
            "state": STATE.type,
            "k_cache": cache,
            "v_cache": cache,
            "output": f"array<vec4f, {max_tokens * self.n_heads * self.head_dim // 4}>",
        }
        return tuple(Binding(name, kind, types[name]) for name, kind in access.items())


def attention_decode(label: str, shape: AttentionShape) -> KernelSpec:
    """Build the attention of one token: RoPE, append to the cache at `state`'s position, attend."""
    return kernel_spec(
        "attention_decode",
        label,
        snippets=("halfs", "rope", "attention_decode"),
        bindings=shape.bindings(
            1,
            {
                "qkv": "read",
                "rope": "read",
                "state": "read",
                "k_cache": "read_write",
                "v_cache": "read_write",
                "output": "read_write",
            },
        ),
        constants=shape.constants(),
        groups_x=shape.n_kv_heads,
    )


def rope_append(label: str, shape: AttentionShape, max_tokens: int) -> KernelSpec:
    """Build the first half of prefill attention: rotate q in place, write k and v to the cache."""
    return kernel_spec(
        "rope_append",
        label,
        snippets=("halfs", "rope", "rope_append"),
        bindings=shape.bindings(
            max_tokens,
            {
                "qkv": "read_write",
                "rope": "read",
                "state": "read",
                "k_cache": "read_write",
                "v_cache": "read_write",
            },
        ),
        constants=shape.constants(),
        groups_x=-(-shape.qkv_heads * shape.head_dim // 8 // _WORKGROUP),
        tokens_per_group=1,
    )


def attention_prefill(label: str, shape: AttentionShape, max_tokens: int) -> KernelSpec:
    """Build the second half: causal attention of the chunk over everything in the cache."""
    return kernel_spec(
        "attention_prefill",
        label,
        snippets=("halfs", "attention_prefill"),
        bindings=shape.bindings(
            max_tokens,
            {
                "qkv": "read",
                "state": "read",
                "k_cache": "read",
                "v_cache": "read",
                "output": "read_write",
            },
        ),
        constants=shape.constants(),
        groups_x=shape.n_heads,
        tokens_per_group=_WORKGROUP,
    )
