"""What tells one layer's attention from another's: heads, RoPE, norms, scores, window, cache."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, sin
from typing import Literal

from py_engine.chat_config import KvCacheDtype

HEAD_DIM_MULTIPLE = 8
"""A thread takes two fours of a head at a time."""

MAX_HEAD_DIM = 256

SMALL_CACHE_BYTES = 512 << 10
"""A buffer of the cache that never becomes larger has its full size from the beginning."""

WORKGROUP = 64

QkNormKind = Literal["head_rms", "full_rms", "head_layer"]


def _rope_rows(context: int) -> tuple[int, int]:
    """Return how many coarse positions the RoPE table has, and the bits of the fine ones.

    Half of a position's bits each: the table has about 2 sqrt(context) rows.
    """
    fine_bits = ((context - 1).bit_length() + 1) // 2
    return -(-context >> fine_bits), fine_bits


def rope_table(inv_freq: Sequence[float], context: int, factor: float = 1.0) -> array[float]:
    """Return cos and sin of position * frequency for the coarse, then the fine positions, as f32.

    Shape (coarse + fine rows, 2, rotary_dim / 2): with `fine` fine rows, row r of the coarse part
    is position r * fine, row r of the fine part is position r; any position's angle is the sum of
    one of each. Angles are computed in float64. `factor` multiplies every cos and sin (YaRN's and
    LongRoPE's attention factor): it is in the coarse rows alone.
    """
    coarse, fine_bits = _rope_rows(context)
    table = array("f")
    for position in range(0, coarse << fine_bits, 1 << fine_bits):
        table.extend(factor * cos(position * frequency) for frequency in inv_freq)
        table.extend(factor * sin(position * frequency) for frequency in inv_freq)
    for position in range(1 << fine_bits):
        table.extend(cos(position * frequency) for frequency in inv_freq)
        table.extend(sin(position * frequency) for frequency in inv_freq)
    return table


def rope_table_bytes(n_frequencies: int, context: int) -> int:
    """Return the bytes of a `rope_table` of so many frequencies."""
    coarse, fine_bits = _rope_rows(context)
    return 4 * 2 * n_frequencies * (coarse + (1 << fine_bits))


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
class QkNorm:
    """Norm of queries and keys before RoPE; `eps` is added to the mean square or the variance.

    "head_rms": RMSNorm of every head, with weights f32 (head_dim,) that heads share (Qwen 3, Gemma
    3). "full_rms": RMSNorm over all heads of a token at once, with weights for each element of each
    head (OLMo 2). "head_layer": LayerNorm of every head without a bias, with weights of its own for
    each head (StableLM 2 12B).
    """

    kind: QkNormKind
    eps: float

    @property
    def heads_share_weights(self) -> bool:
        """Whether there is one vector of weights (head_dim,) for all heads of q, or of k."""
        return self.kind == "head_rms"


@dataclass(frozen=True)
class QueryScaling:
    """Factor of queries that grows with their position, as in Llama 4 and Ministral 3.

    It is 1 + beta * log(1 + floor(position / original_context)).
    """

    beta: float
    original_context: int


@dataclass(frozen=True)
class AttentionShape:
    """One layer's attention.

    The first `rotary_dim` elements of a head are rotated, 0 for none, None for all: any even
    number. Scores are q.k times `scale` (None: 1 / sqrt(head_dim)), and with a `soft_cap` are
    soft_cap * tanh(score / soft_cap). A sequence has at most `context` tokens, of which a query
    sees all up to itself or those of its `window`. With `gated` the projection has behind every
    query head a gate of the same size, whose sigmoid multiplies the head's output (Qwen 3.5).

    In a chunk, tokens of one image see each other in both directions; an image has `image_tokens`,
    0 in models without image input.

    Of the KV heads, the kernels compute those of the cache at hand, `cache_heads` (None: all) from
    number `first_cache_head` on: see `parts`. They keep keys and values in `cache_dtype`.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    context: int
    window: SlidingWindow | None = None
    qk_norm: QkNorm | None = None
    rotary_dim: int | None = None
    scale: float | None = None
    soft_cap: float | None = None
    query_scaling: QueryScaling | None = None
    gated: bool = False
    image_tokens: int = 0
    cache_heads: int | None = None
    first_cache_head: int = 0
    cache_dtype: KvCacheDtype = "float16"

    @property
    def qkv_heads(self) -> int:
        """Heads in a row of the fused projection, gates included."""
        return (2 if self.gated else 1) * self.n_heads + 2 * self.n_kv_heads

    @property
    def rotated(self) -> int:
        """Elements of a head that are rotated."""
        return self.head_dim if self.rotary_dim is None else self.rotary_dim

    @property
    def slots(self) -> int:
        """Most tokens whose keys and values the cache ever holds."""
        if self.window is None:
            return self.context
        return min(self.context, self.window.sinks + self.window.ring)

    @property
    def heads_in_cache(self) -> int:
        """KV heads in one buffer of the cache."""
        return self.n_kv_heads if self.cache_heads is None else self.cache_heads

    @property
    def cached_head_bytes(self) -> int:
        """Bytes of one token's key, or value, of one head in the cache."""
        return 2 * self.head_dim if self.cache_dtype == "float16" else self.head_dim + 4

    @property
    def slot_bytes(self) -> int:
        """Bytes of one token's keys, or values, in one buffer of the cache."""
        return self.heads_in_cache * self.cached_head_bytes

    @property
    def cache_bytes(self) -> int:
        """Bytes of one buffer of the cache, the keys or the values, at its largest."""
        return self.slots * self.slot_bytes

    @property
    def grows(self) -> bool:
        """Whether the cache begins small; kernels know the size of one that does not.

        That makes them faster: 5 to 15 percent of decode's attention on SwiftShader.
        """
        return self.cache_bytes > SMALL_CACHE_BYTES

    @property
    def workgroup_bytes(self) -> int:
        """Bytes of workgroup memory that `attention_decode` needs."""
        n_rep = self.n_heads // self.n_kv_heads
        sinks_turn = self.window is not None and self.window.sinks > 0 and self.rotated > 0
        queries = (2 if sinks_turn else 1) * n_rep * self.head_dim
        full_norm = self.qk_norm is not None and self.qk_norm.kind == "full_rms"
        kept = 0 if self.cache_dtype == "float16" else 2 * self.head_dim
        return 4 * (queries + kept + 2 * n_rep * WORKGROUP + (2 * WORKGROUP if full_norm else 0))

    @property
    def rope_rows(self) -> tuple[int, int]:
        """How many coarse positions the RoPE table has, and the bits of the fine ones."""
        return _rope_rows(self.context)

    def parts(self, most_bytes: int) -> tuple[AttentionShape, ...]:
        """Return this attention as one or more over some of the KV heads each.

        None of their caches is larger than `most_bytes`, unless a single head's is.
        """
        heads = self.n_kv_heads
        most = max(1, most_bytes // (self.slots * self.cached_head_bytes))
        n_parts = next(n for n in range(1, heads + 1) if heads % n == 0 and heads // n <= most)
        if n_parts == 1:
            return (self,)
        each = heads // n_parts
        return tuple(
            replace(self, cache_heads=each, first_cache_head=first)
            for first in range(0, heads, each)
        )
