"""Attention with RoPE and an f16 KV cache of one sequence.

Shapes: qkv f32 (tokens, heads + 2 kv_heads, head_dim), queries first, then keys, then values;
k_cache and v_cache f16 (kv_heads, slots, head_dim); output f32 (tokens, heads, head_dim). RoPE
rotates the pairs (i, i + head_dim / 2), as Hugging Face's Llama does. Softmax in f32, online.

Keys are rotated at their position in the sequence. With a sliding window the distances within it
are the same as if positions were counted from its start; only the sinks, which stay behind, are
seen through queries that are rotated at their place in the window (StreamingLLM, Xiao et al. 2023).

With QK-norm (Henry et al. 2020, in the RMSNorm form of Qwen 3) every head of q and k is scaled to
unit root mean square and by q_norm or k_norm, f32 (head_dim,), before RoPE.
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
_NORMS = ("q_norm", "k_norm")


def _rope_rows(context: int) -> tuple[int, int]:
    """Return how many coarse positions the RoPE table has, and the bits of the fine ones.

    Half of a position's bits each: the table has about 2 sqrt(context) rows.
    """
    fine_bits = ((context - 1).bit_length() + 1) // 2
    return -(-context >> fine_bits), fine_bits


def rope_table(inv_freq: Sequence[float], context: int) -> array[float]:
    """Return cos and sin of position * frequency for the coarse, then the fine positions, as f32.

    Shape (coarse + fine rows, 2, head_dim / 2): with `fine` fine rows, row r of the coarse part is
    position r * fine, row r of the fine part is position r; any position's angle is the sum of one
    of each. Angles are computed in float64.
    """
    coarse, fine_bits = _rope_rows(context)
    positions = [*(row << fine_bits for row in range(coarse)), *range(1 << fine_bits)]
    table = array("f")
    for position in positions:
        table.extend(cos(position * frequency) for frequency in inv_freq)
        table.extend(sin(position * frequency) for frequency in inv_freq)
    return table


@dataclass(frozen=True)
class SlidingWindow:
    """Which tokens a query sees: at most `size`, itself included.

    These are the first `sinks` of the sequence and the latest `size - sinks`. Their keys and values
    lie in a ring of `ring` slots behind those of the sinks: position p in slot
    sinks + (p - sinks) % ring.
    """

    size: int
    sinks: int
    ring: int

    @staticmethod
    def for_chunks(size: int, sinks: int, max_tokens: int) -> SlidingWindow:
        """Return a window with the smallest ring for chunks of up to `max_tokens`.

        A chunk's last token is written before its first one's query is answered, so the ring holds
        what the first one sees and the rest of the chunk.
        """
        return SlidingWindow(size, sinks, size - sinks + max_tokens - 1)

    def reusable_tokens(self, n_tokens: int, n_written: int) -> int:
        """Return how many of a sequence's first `n_tokens` tokens can be kept: all or none.

        `n_written` counts the positions that were ever written since the sequence began, those
        given up since included. What the next token sees must not have been overwritten by any.
        """
        first_seen = self.sinks + max(0, n_tokens + 1 - self.size)
        first_held = max(self.sinks, n_written - self.ring)
        return n_tokens if first_seen >= first_held else 0


@dataclass(frozen=True)
class AttentionShape:
    """Heads of a layer, how long a sequence may become, and its window (None: it sees all).

    `qk_norm_eps` is added to the mean square in the norms of heads (None: there are none).
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    context: int
    window: SlidingWindow | None = None
    qk_norm_eps: float | None = None

    @property
    def qkv_heads(self) -> int:
        """Heads in a row of the fused projection."""
        return self.n_heads + 2 * self.n_kv_heads

    @property
    def slots(self) -> int:
        """Tokens whose keys and values the cache has room for."""
        return self.context if self.window is None else self.window.sinks + self.window.ring

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys, or of the values, of one layer."""
        return 2 * self.n_kv_heads * self.slots * self.head_dim

    @property
    def workgroup_bytes(self) -> int:
        """Bytes of workgroup memory that `attention_decode` needs."""
        n_rep = self.n_heads // self.n_kv_heads
        turned = 1 if self.window is None or not self.window.sinks else 2
        return 4 * n_rep * (turned * self.head_dim + 2 * _WORKGROUP)

    @property
    def cache_snippet(self) -> str:
        """The WGSL that tells where a position lies in the cache and what a query sees."""
        return "cache_whole" if self.window is None else "cache_ring"

    def constants(self) -> dict[str, int | float | bool | str]:
        """Return the constants of all kernels here."""
        coarse, fine_bits = _rope_rows(self.context)
        window = self.window
        ring = {} if window is None else {"WINDOW": window.size, "RING": window.ring}
        norm = {} if self.qk_norm_eps is None else {"EPSILON": float(self.qk_norm_eps)}
        return {
            "N_HEADS": self.n_heads,
            "N_KV_HEADS": self.n_kv_heads,
            "HEAD_DIM": self.head_dim,
            "SLOTS": self.slots,
            "SINKS": 0 if window is None else window.sinks,
            **ring,
            **norm,
            "WORKGROUP": _WORKGROUP,
            "SCALE": self.head_dim**-0.5,
            "ROPE_FINE_BITS": fine_bits,
            "ROPE_COARSE": coarse,
            **STATE_WORDS,
        }

    def bindings(
        self, max_tokens: int, access: Mapping[str, Literal["read", "read_write"]]
    ) -> tuple[Binding, ...]:
        """Return the buffers that `access` names, in its order: norms only where there are any."""
        coarse, fine_bits = _rope_rows(self.context)
        rope_rows = coarse + (1 << fine_bits)
        cache = f"array<vec2u, {self.cache_bytes // 8}>"
        types = {
            "qkv": f"array<vec4f, {max_tokens * self.qkv_heads * self.head_dim // 4}>",
            "q_norm": f"array<vec4f, {self.head_dim // 4}>",
            "k_norm": f"array<vec4f, {self.head_dim // 4}>",
            "rope": f"array<vec4f, {rope_rows * self.head_dim // 4}>",
            "state": STATE.type,
            "k_cache": cache,
            "v_cache": cache,
            "output": f"array<vec4f, {max_tokens * self.n_heads * self.head_dim // 4}>",
        }
        absent = _NORMS if self.qk_norm_eps is None else ()
        return tuple(
            Binding(name, kind, types[name]) for name, kind in access.items() if name not in absent
        )


def attention_decode(label: str, shape: AttentionShape) -> KernelSpec:
    """Build the attention of one token: RoPE, append to the cache at `state`'s position, attend."""
    norm = "head_norm_none" if shape.qk_norm_eps is None else "head_norm_rms"
    return kernel_spec(
        "attention_decode",
        label,
        snippets=("halfs", "rope", shape.cache_snippet, norm, "attention_decode"),
        bindings=shape.bindings(
            1,
            {
                "qkv": "read",
                "q_norm": "read",
                "k_norm": "read",
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
    threads_per_head = shape.head_dim // 8
    if shape.qk_norm_eps is None:
        main, groups = "rope_append_plain", -(-shape.qkv_heads * threads_per_head // _WORKGROUP)
    else:
        main, groups = "rope_append_normed", -(-shape.qkv_heads // (_WORKGROUP // threads_per_head))
    return kernel_spec(
        "rope_append",
        label,
        snippets=("halfs", "rope", shape.cache_snippet, "rope_append", main),
        bindings=shape.bindings(
            max_tokens,
            {
                "qkv": "read_write",
                "q_norm": "read",
                "k_norm": "read",
                "rope": "read",
                "state": "read",
                "k_cache": "read_write",
                "v_cache": "read_write",
            },
        ),
        constants=shape.constants(),
        groups_x=groups,
        tokens_per_group=1,
    )


def attention_prefill(label: str, shape: AttentionShape, max_tokens: int) -> KernelSpec:
    """Build the second half: causal attention of the chunk over what the cache holds."""
    return kernel_spec(
        "attention_prefill",
        label,
        snippets=("halfs", "rope", shape.cache_snippet, "attention_prefill"),
        bindings=shape.bindings(
            max_tokens,
            {
                "qkv": "read",
                "rope": "read",
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
