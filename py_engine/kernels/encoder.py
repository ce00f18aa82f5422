"""Kernels of encoders: attention in both directions, and pooling.

The sequences of a batch lie one after another in rows of tokens, without padding; a pair (first
token, end) says which tokens a sequence has.
"""

from __future__ import annotations

from py_engine.gpu.types import Binding, KernelSpec
from py_engine.kernels.wgsl import STATE, STATE_WORDS, kernel_spec

HEAD_DIM_MULTIPLE = 4
MAX_HEAD_DIM = 256

_WORKGROUP = 64


def attention_bidirectional(label: str, n_heads: int, head_dim: int, max_tokens: int) -> KernelSpec:
    """Build the attention of every token to all tokens of its own sequence.

    Shapes: qkv f32 (max_tokens, 3 heads, head_dim), queries first, then keys, then values; spans
    u32 (max_tokens, 2), the pair of each token's sequence; output f32 (max_tokens, heads,
    head_dim). Scores are divided by sqrt(head_dim). Softmax in f32, online.
    """
    row = n_heads * head_dim // 4
    return kernel_spec(
        "attention_bidirectional",
        label,
        snippets=("attention_bidirectional",),
        bindings=(
            Binding("qkv", "read", f"array<vec4f, {max_tokens * 3 * row}>"),
            Binding("spans", "read", f"array<vec2u, {max_tokens}>"),
            STATE,
            Binding("output", "read_write", f"array<vec4f, {max_tokens * row}>"),
        ),
        constants={
            "N_HEADS": n_heads,
            "HEAD_DIM": head_dim,
            "SCALE": head_dim**-0.5,
            "WORKGROUP": _WORKGROUP,
            **STATE_WORDS,
        },
        groups_x=n_heads,
        tokens_per_group=_WORKGROUP,
    )


def pool(
    label: str,
    hidden_size: int,
    max_tokens: int,
    max_sequences: int,
    *,
    mean: bool = False,
    normalize: bool = False,
) -> KernelSpec:
    """Build the pooling of each sequence's rows into one vector.

    That is its first token's row, or with `mean` the mean of its rows; with `normalize` divided by
    its Euclidean length. Shapes: x f32 (max_tokens, hidden_size), sequences u32 (max_sequences, 2),
    output f32 (max_sequences, hidden_size). Rows of empty sequences stay untouched.
    """
    return kernel_spec(
        "pool",
        label,
        snippets=("pool",),
        bindings=(
            Binding("x", "read", f"array<vec4f, {max_tokens * hidden_size // 4}>"),
            Binding("sequences", "read", f"array<vec2u, {max_sequences}>"),
            Binding("output", "read_write", f"array<vec4f, {max_sequences * hidden_size // 4}>"),
        ),
        constants={
            "COLUMNS": hidden_size,
            "MEAN": mean,
            "NORMALIZE": normalize,
            "WORKGROUP": _WORKGROUP,
        },
        groups_x=max_sequences,
    )
