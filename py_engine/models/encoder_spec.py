"""What distinguishes one encoder-only model from another, as data.

A family's file (`models/bert.py`) turns a model's configuration into an `EncoderSpec`; `encoder.py`
builds kernels and programs from the spec alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.models.embedder import Pooling


@dataclass(frozen=True)
class EncoderSpec:
    """Shapes and constants of one post-norm transformer encoder.

    Its parameters are named by role (`weights/parameters.py`); `encoder_parameters` lists them.
    Rows of the fused `qkv` weight are q, k, v in that order, each by heads. `n_positions` and
    `n_token_types` are the rows of the tables of position and token-type embeddings. At most
    `max_batch_size` sequences and `max_batch_tokens` tokens are computed together; their vectors
    are pooled as `pooling` says, and have length 1 with `normalize`.
    """

    n_layers: int
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

    @property
    def head_dim(self) -> int:
        """Values of one head."""
        return self.hidden_size // self.n_heads
