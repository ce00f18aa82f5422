"""What distinguishes one decoder-only model from another, as data.

A family's file (`models/llama.py`) turns a model's configuration into a `DecoderSpec`; the decoder
builds kernels and programs from the spec alone and never asks which family it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from py_engine.chat_config import KvCacheDtype
from py_engine.kernels.attention_shape import (
    AttentionShape,
    QkNorm,
    QueryScaling,
    SlidingWindow,
)
from py_engine.kernels.delta import DeltaShape
from py_engine.kernels.norm import Norm

MAX_SLIDING_POSITIONS = 1 << 20
"""How long a sequence with a sliding window may become: so far the RoPE table reaches."""

MIN_IMAGE_SLOTS = 8
"""How many images' rows are kept at the least."""

Activation = Literal["silu", "gelu", "gelu_tanh"]

LayerKind = Literal["attention", "delta"]
"""How tokens mix: softmax attention over a KV cache, or the gated delta rule over a state."""


@dataclass(frozen=True)
class Heads:
    """Attention: its heads, what is done to queries and keys, and its biases.

    `scale` None is 1 / sqrt(head_dim), `rotary_dim` None is head_dim; see `AttentionShape` for all
    that has its names.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    rotary_dim: int | None = None
    scale: float | None = None
    soft_cap: float | None = None
    qk_norm: QkNorm | None = None
    query_scaling: QueryScaling | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    gated: bool = False

    @property
    def width(self) -> int:
        """Values of all query heads: what the output projection reads."""
        return self.n_heads * self.head_dim

    @property
    def qkv_blocks(self) -> tuple[int, int, int]:
        """Rows of q (with its gates, where there are any), k and v in the fused projection."""
        keys = self.n_kv_heads * self.head_dim
        return ((2 if self.gated else 1) * self.width, keys, keys)

    def shape(self, context: int, window: SlidingWindow | None) -> AttentionShape:
        """Return what the kernels of a layer with such a window are made of."""
        return AttentionShape(
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            context=context,
            window=window,
            qk_norm=self.qk_norm,
            rotary_dim=self.rotary_dim,
            scale=self.scale,
            soft_cap=self.soft_cap,
            query_scaling=self.query_scaling,
            gated=self.gated,
        )


@dataclass(frozen=True)
class Mlp:
    """The feed-forward part: down(activation(gate) * up), or down(activation(up)) if not gated."""

    intermediate_size: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False

    @property
    def role(self) -> str:
        """The role of the projection before `down`."""
        return "gate_up" if self.gated else "up"


@dataclass(frozen=True)
class Block:
    """Which norms a layer has, and whether attention and MLP run side by side.

    In sequence: x += post_attention_norm(attention(input_norm(x))), then
    x += post_mlp_norm(mlp(mlp_norm(x))). In `parallel`: x += attention(input_norm(x)) + mlp(y),
    where y is mlp_norm(x) (GPT-NeoX), or the same input_norm(x) where there is no mlp_norm (Phi 2).
    """

    input_norm: bool = True
    post_attention_norm: bool = False
    mlp_norm: bool = True
    post_mlp_norm: bool = False
    parallel: bool = False

    @property
    def norms(self) -> tuple[str, ...]:
        """The roles of the norms that are there."""
        names = ("input_norm", "post_attention_norm", "mlp_norm", "post_mlp_norm")
        return tuple(name for name in names if getattr(self, name))


@dataclass(frozen=True)
class LongRope:
    """What replaces the frequencies once a sequence has more than `limit` tokens, for all of it."""

    limit: int
    inv_freq: tuple[float, ...]


@dataclass(frozen=True)
class Rope:
    """Rotary position embeddings: `rotary_dim / 2` frequencies in radians per position.

    Computed in float64 with every scaling of the family applied. Rotated values are multiplied by
    `factor` (YaRN's and LongRoPE's attention factor).
    """

    inv_freq: tuple[float, ...]
    factor: float = 1.0
    long: LongRope | None = None


@dataclass(frozen=True)
class Layer:
    """One layer: its kind, what it sees (None: everything before it), which of the spec's `ropes`.

    A `scale` of its scores goes before that of the heads. All this is of attention; a layer of the
    kind "delta" is what the spec's `delta` says.
    """

    kind: LayerKind = field(default="attention", kw_only=True)
    window: SlidingWindow | None = None
    rope: int = 0
    scale: float | None = None


@dataclass(frozen=True)
class DecoderSpec:
    """Shapes and constants of one decoder-only transformer.

    Its parameters are named by role (`weights/parameters.py`); `decoder_parameters` lists them. Of
    the `vocab_size` rows of the output projection only the first `active_vocab_size` are of tokens.
    With `tied` the embedding table is also the output projection. Embeddings are multiplied by
    `embedding_scale`; where `n_positions` is not 0, a learned table of so many positions is added
    to them. Logits become cap * tanh(logit / cap) where there is a `logit_soft_cap`.
    `context_window_size` is the longest sequence, also of layers that see only a part of it.
    `delta` is the shape of the layers of that kind; without it there are none. Where a vision tower
    makes rows of images, `image_tokens` (else 0) is how many an image has; they see each other in
    both directions. KV caches are of `kv_cache_dtype`.
    """

    hidden_size: int
    vocab_size: int
    active_vocab_size: int
    heads: Heads
    mlp: Mlp
    norm: Norm
    layers: tuple[Layer, ...]
    ropes: tuple[Rope, ...]
    context_window_size: int
    prefill_chunk_size: int
    block: Block = Block()
    tied: bool = False
    lm_head_bias: bool = False
    embedding_scale: float = 1.0
    n_positions: int = 0
    logit_soft_cap: float | None = None
    delta: DeltaShape | None = None
    image_tokens: int = 0
    kv_cache_dtype: KvCacheDtype = "float16"

    @property
    def n_layers(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    @property
    def attention_layers(self) -> dict[int, Layer]:
        """The layers with a KV cache by number."""
        return {i: layer for i, layer in enumerate(self.layers) if layer.kind == "attention"}

    @property
    def delta_layers(self) -> dict[int, DeltaShape]:
        """The shapes of the layers with a recurrent state by number."""
        shape = self.delta
        if shape is None:
            return {}
        return {i: shape for i, layer in enumerate(self.layers) if layer.kind == "delta"}

    def attention(self, layer: Layer) -> AttentionShape:
        """Return the shapes of a layer's attention and its KV cache."""
        shape = self.heads.shape(self.context_window_size, layer.window)
        shape = replace(shape, image_tokens=self.image_tokens, cache_dtype=self.kv_cache_dtype)
        return shape if layer.scale is None else replace(shape, scale=layer.scale)

    @property
    def image_slots(self) -> int:
        """How many images' rows are kept: at least those of a chunk."""
        if not self.image_tokens:
            return 0
        return max(MIN_IMAGE_SLOTS, self.prefill_chunk_size // self.image_tokens)

    @property
    def head(self) -> str:
        """The role of the matrix that makes the logits."""
        return "embedding" if self.tied else "lm_head"

    @property
    def long_rope(self) -> LongRope | None:
        """What long sequences are rotated by instead: all ropes change at one limit."""
        return next((rope.long for rope in self.ropes if rope.long), None)
