"""Which parameters a decoder has: its matrices and vectors by role, with their shapes."""

from __future__ import annotations

from py_engine.models.spec import DecoderSpec, Layer
from py_engine.weights.parameters import MatrixParameter, Parameter, VectorParameter


def decoder_parameters(spec: DecoderSpec) -> tuple[Parameter, ...]:
    """Return the parameters of a decoder in the order of its computation."""
    hidden = spec.hidden_size
    found: list[Parameter] = [MatrixParameter("embedding", (spec.vocab_size,), hidden)]
    if spec.n_positions:
        found.append(MatrixParameter("positions", (spec.n_positions,), hidden))
    for index, layer in enumerate(spec.layers):
        found += _layer(spec, layer, f"layers.{index}.")
    found += _norm(spec, "final_norm")
    if not spec.tied:
        found += _linear("lm_head", (spec.vocab_size,), hidden, bias=spec.lm_head_bias)
    return tuple(found)


def _linear(
    role: str, blocks: tuple[int, ...], columns: int, *, bias: bool, head_dim: int | None = None
) -> list[Parameter]:
    matrix = MatrixParameter(role, blocks, columns, gated=len(blocks) == 2, head_dim=head_dim)
    return [matrix, *([VectorParameter(f"{role}.bias", blocks, head_dim)] if bias else [])]


def _norm(spec: DecoderSpec, role: str) -> list[Parameter]:
    size = (spec.hidden_size,)
    bias = [VectorParameter(f"{role}.bias", size)] if spec.norm.bias else []
    return [VectorParameter(role, size), *bias]


def _layer(spec: DecoderSpec, layer: Layer, prefix: str) -> list[Parameter]:
    heads, mlp, hidden = spec.heads, spec.mlp, spec.hidden_size
    inner, head_dim = mlp.intermediate_size, heads.head_dim
    inputs = (inner, inner) if mlp.gated else (inner,)
    found = [parameter for name in spec.block.norms for parameter in _norm(spec, prefix + name)]
    found += _linear(
        f"{prefix}qkv", heads.qkv_blocks, hidden, bias=heads.qkv_bias, head_dim=head_dim
    )
    if heads.qk_norm is not None:
        for name, n_heads in (("q_norm", heads.n_heads), ("k_norm", heads.n_kv_heads)):
            copies = 1 if heads.qk_norm.heads_share_weights else n_heads
            found.append(VectorParameter(prefix + name, (copies * head_dim,), head_dim))
    found += _linear(f"{prefix}output", (hidden,), heads.width, bias=heads.output_bias)
    found += _linear(prefix + mlp.role, inputs, hidden, bias=mlp.bias)
    return [*found, *_linear(f"{prefix}down", (hidden,), inner, bias=mlp.bias)]
