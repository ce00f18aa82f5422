"""Which parameters a decoder has: its matrices and vectors by role, with their shapes."""

from __future__ import annotations

from py_engine.kernels.delta import DeltaShape
from py_engine.models.spec import DecoderSpec
from py_engine.weights.parameters import MatrixParameter, Parameter, VectorParameter


def decoder_parameters(spec: DecoderSpec) -> tuple[Parameter, ...]:
    """Return the parameters of a decoder in the order of its computation."""
    hidden = spec.hidden_size
    found: list[Parameter] = [MatrixParameter("embedding", (spec.vocab_size,), hidden)]
    if spec.n_positions:
        found.append(MatrixParameter("positions", (spec.n_positions,), hidden))
    for index in range(spec.n_layers):
        found += _layer(spec, index)
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


def _layer(spec: DecoderSpec, index: int) -> list[Parameter]:
    mlp, hidden, prefix = spec.mlp, spec.hidden_size, f"layers.{index}."
    inner = mlp.intermediate_size
    inputs = (inner, inner) if mlp.gated else (inner,)
    found = [parameter for name in spec.block.norms for parameter in _norm(spec, prefix + name)]
    delta = spec.delta_layers.get(index)
    found += _attention(spec, prefix) if delta is None else _delta(delta, hidden, prefix)
    found += _linear(prefix + mlp.role, inputs, hidden, bias=mlp.bias)
    return [*found, *_linear(f"{prefix}down", (hidden,), inner, bias=mlp.bias)]


def _attention(spec: DecoderSpec, prefix: str) -> list[Parameter]:
    heads, hidden, head_dim = spec.heads, spec.hidden_size, spec.heads.head_dim
    found = _linear(
        f"{prefix}qkv", heads.qkv_blocks, hidden, bias=heads.qkv_bias, head_dim=head_dim
    )
    if heads.qk_norm is not None:
        for name, n_heads in (("q_norm", heads.n_heads), ("k_norm", heads.n_kv_heads)):
            copies = 1 if heads.qk_norm.heads_share_weights else n_heads
            found.append(VectorParameter(prefix + name, (copies * head_dim,), head_dim))
    return [*found, *_linear(f"{prefix}output", (hidden,), heads.width, bias=heads.output_bias)]


def _delta(shape: DeltaShape, hidden: int, prefix: str) -> list[Parameter]:
    channels, size, heads = shape.conv_channels, shape.conv_size, shape.n_value_heads
    return [
        MatrixParameter(f"{prefix}delta.input", shape.row_blocks, hidden),
        VectorParameter(
            f"{prefix}delta.conv", (channels * size,), stored_shape=(channels, 1, size)
        ),
        VectorParameter(f"{prefix}delta.gates", (heads, heads)),
        VectorParameter(f"{prefix}delta.norm", (shape.value_dim,)),
        MatrixParameter(f"{prefix}delta.output", (hidden,), shape.output_size),
    ]
