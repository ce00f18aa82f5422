"""From a spec to an encoder's program: which kernel runs over which buffers, step by step.

Seven dispatches a layer: QKV, attention, output projection onto the residual, norm, up with GELU,
down onto the residual, norm. Before them three embeddings and a norm, after them the pooling.
"""

from __future__ import annotations

from collections.abc import Iterator

from py_engine.kernels.encoder import attention_bidirectional, pool
from py_engine.kernels.matmul import Epilogue
from py_engine.kernels.norm import Norm
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.ops import Ops, Step
from py_engine.weights.layouts import Layouts

_LINEAR = Epilogue(bias=True)
_GELU = Epilogue(bias=True, activation="gelu")
_RESIDUAL = Epilogue(bias=True, residual=True)


def encoder_steps(spec: EncoderSpec, layouts: Layouts, lanes: int | None) -> list[Step]:
    """Return an encoder's program, for subgroups of at most `lanes` (None: without)."""
    columns = {
        "x": spec.hidden_size,
        "attended": spec.hidden_size,
        "activated": spec.intermediate_size,
    }
    norm = Norm("layer", spec.layer_norm_eps, bias=True)
    ops = Ops(layouts, norm, columns, lanes=lanes, max_tokens=spec.max_batch_tokens)
    return [*_embeddings(ops), *_layers(spec, ops), _pool(spec, ops)]


def _embeddings(ops: Ops) -> Iterator[Step]:
    yield from ops.embedding("embedding", "tokens", "tokens")
    # Of these two buffers the second stays zero: a text is one segment.
    for role in ("positions", "token_types"):
        yield from ops.embedding(role, "tokens", role, add=True)
    yield _norm(ops, "embedding_norm")


def _norm(ops: Ops, role: str) -> Step:
    return ops.norm(role, "norm", "x", "x", "in_place")


def _layers(spec: EncoderSpec, ops: Ops) -> Iterator[Step]:
    attention = ops.kernel(
        attention_bidirectional,
        "attention",
        n_heads=spec.n_heads,
        head_dim=spec.head_dim,
        max_tokens=spec.max_batch_tokens,
    )
    for index in range(spec.n_layers):
        layer = f"layers.{index}."
        yield from ops.product(f"{layer}qkv", "x", "qkv", _LINEAR)
        yield ops.step(attention, {"qkv": "qkv", "spans": "spans", "output": "attended"})
        yield from ops.product(f"{layer}output", "attended", "x", _RESIDUAL)
        yield _norm(ops, f"{layer}attention_output_norm")
        yield from ops.product(f"{layer}up", "x", "activated", _GELU)
        yield from ops.product(f"{layer}down", "activated", "x", _RESIDUAL)
        yield _norm(ops, f"{layer}mlp_output_norm")


def _pool(spec: EncoderSpec, ops: Ops) -> Step:
    kernel = ops.kernel(
        pool,
        "pool",
        hidden_size=spec.hidden_size,
        max_tokens=spec.max_batch_tokens,
        max_sequences=spec.max_batch_size,
        mean=spec.pooling == "mean",
        normalize=spec.normalize,
    )
    return ops.step(kernel, {"x": "x", "sequences": "sequences", "output": "pooled"})
