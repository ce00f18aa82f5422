"""What distinguishes one encoder-only model from another, as data.

A family's file (`models/bert.py`) turns a model's configuration into an `EncoderSpec`; `encoder.py`
builds kernels and programs from the spec alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.kernels.formats import WeightFormat
from py_engine.models.embedder import Pooling


@dataclass(frozen=True)
class EncoderLayerNames:
    """Parameter names of one layer in the model's files.

    Each stands for a pair: a linear layer's `.weight` (or `.q_weight`) and `.bias`, a norm's
    `.weight` and `.bias`.
    """

    qkv: str
    attention_output: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str


@dataclass(frozen=True)
class EncoderSpec:
    """Shapes, constants and parameter names of one post-norm transformer encoder.

    Rows of the fused `qkv` weight are q, k, v in that order, each by heads. `n_positions` and
    `n_token_types` are the rows of the tables of position and token-type embeddings. At most
    `max_batch_size` sequences and `max_batch_tokens` tokens are computed together; their vectors
    are pooled as `pooling` says, and have length 1 with `normalize`.
    """

    weight_format: WeightFormat
    hidden_size: int
    intermediate_size: int
    n_heads: int
    vocab_size: int
    n_positions: int
    n_token_types: int
    layer_norm_eps: float
    context_window_size: int
    max_batch_size: int
    max_batch_tokens: int
    pooling: Pooling
    normalize: bool
    word_embeddings: str
    position_embeddings: str
    token_type_embeddings: str
    embedding_norm: str
    layers: tuple[EncoderLayerNames, ...]

    @property
    def head_dim(self) -> int:
        """Values of one head."""
        return self.hidden_size // self.n_heads
