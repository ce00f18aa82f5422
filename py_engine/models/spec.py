"""What distinguishes one decoder-only model from another, as data.

A family's file (`models/llama.py`) turns a model's configuration into a `DecoderSpec`; `decoder.py`
builds kernels and programs from the spec alone and never asks which family it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.kernels.attention_shape import AttentionShape, QkNorm, SlidingWindow
from py_engine.kernels.formats import WeightFormat

MAX_SLIDING_POSITIONS = 1 << 20
"""How long a sequence with a sliding window may become: so far the RoPE table reaches."""


@dataclass(frozen=True)
class LayerNames:
    """Parameter names of one layer in the model's files, without `.weight` or `.q_weight`.

    `head_norms` are those of queries and of keys, where the family has them.
    """

    input_norm: str
    qkv: str
    output: str
    post_attention_norm: str
    gate_up: str
    down: str
    head_norms: tuple[str, str] | tuple[()] = ()


@dataclass(frozen=True)
class DecoderSpec:
    """Shapes, constants and parameter names of one decoder-only transformer.

    `rope_inv_freq` holds the `head_dim / 2` rotation frequencies in radians per position, computed
    in float64 with every scaling of the family already applied. Rows of the fused `qkv` weight are
    q, k, v in that order; rows of `gate_up` are gate, then up. Of the `vocab_size` rows of the
    output projection only the first `active_vocab_size` are of tokens. `lm_head` is None when the
    embedding table is also the output projection. `context_window_size` is the longest sequence;
    with a `window` a token sees only a part of it. With `qkv_bias` the fused projection has a bias.
    Where layers have `head_norms`, these scale every head of q and k before RoPE.
    """

    weight_format: WeightFormat
    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    active_vocab_size: int
    rms_norm_eps: float
    rope_inv_freq: tuple[float, ...]
    context_window_size: int
    prefill_chunk_size: int
    embedding: str
    layers: tuple[LayerNames, ...]
    final_norm: str
    lm_head: str | None
    window: SlidingWindow | None = None
    qkv_bias: bool = False

    @property
    def qkv_size(self) -> int:
        """Rows of the fused QKV projection."""
        return (self.n_heads + 2 * self.n_kv_heads) * self.head_dim

    @property
    def attention(self) -> AttentionShape:
        """The shapes of a layer's attention and its KV cache."""
        return AttentionShape(
            self.n_heads,
            self.n_kv_heads,
            self.head_dim,
            self.context_window_size,
            self.window,
            QkNorm("head_rms", self.rms_norm_eps) if self.layers[0].head_norms else None,
        )
