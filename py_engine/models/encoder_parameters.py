"""Which parameters an encoder has: its matrices and vectors by role, with their shapes."""

from __future__ import annotations

from py_engine.models.encoder_spec import EncoderSpec
from py_engine.weights.parameters import MatrixParameter, Parameter, VectorParameter


def encoder_parameters(spec: EncoderSpec) -> tuple[Parameter, ...]:
    """Return the parameters of an encoder in the order of its computation."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    found: list[Parameter] = [
        MatrixParameter("embedding", (spec.vocab_size,), hidden),
        MatrixParameter("positions", (spec.n_positions,), hidden),
        MatrixParameter("token_types", (spec.n_token_types,), hidden),
        *_norm("embedding_norm", hidden),
    ]
    for index in range(spec.n_layers):
        layer = f"layers.{index}."
        found += [
            *_linear(f"{layer}qkv", (hidden, hidden, hidden), hidden),
            *_linear(f"{layer}output", (hidden,), hidden),
            *_norm(f"{layer}attention_output_norm", hidden),
            *_linear(f"{layer}up", (inner,), hidden),
            *_linear(f"{layer}down", (hidden,), inner),
            *_norm(f"{layer}mlp_output_norm", hidden),
        ]
    return tuple(found)


def _linear(role: str, blocks: tuple[int, ...], columns: int) -> list[Parameter]:
    return [MatrixParameter(role, blocks, columns), VectorParameter(f"{role}.bias", blocks)]


def _norm(role: str, size: int) -> list[Parameter]:
    return [VectorParameter(role, (size,)), VectorParameter(f"{role}.bias", (size,))]
