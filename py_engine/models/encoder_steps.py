"""From a spec to an encoder's program: which kernel runs over which buffers, step by step.

Seven dispatches a layer: QKV, attention, output projection onto the residual, norm, up with GELU,
down onto the residual, norm; layers of vision towers have their norms before the branches. Before
them three embeddings and a norm, after them the pooling.
"""

from __future__ import annotations

from collections.abc import Iterator

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.encoder import attention_bidirectional, pool
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import Activation, Epilogue
from py_engine.kernels.tuning import Tuning
from py_engine.models.encoder_spec import EncoderSpec
from py_engine.models.ops import Ops, Step
from py_engine.weights.layouts import Layouts

_LINEAR = Epilogue(bias=True)
_RESIDUAL = Epilogue(bias=True, residual=True)


def encoder_steps(spec: EncoderSpec, layouts: Layouts, tuning: Tuning) -> list[Step]:
    """Return an encoder's program of kernels in the forms of `tuning`."""
    columns = {
        "x": spec.hidden_size,
        "attended": spec.hidden_size,
        "activated": spec.intermediate_size,
    }
    norm = Norm("layer", spec.layer_norm_eps, bias=True)
    ops = Ops(layouts, norm, columns, tuning=tuning, max_tokens=spec.max_batch_tokens)
    return [*_embeddings(ops), *_layers(spec, ops), _pool(spec, ops)]


def _embeddings(ops: Ops) -> Iterator[Step]:
    yield from ops.embedding("embedding", "tokens", "tokens")
    # Of these two buffers the second stays zero: a text is one segment.
    for role in ("positions", "token_types"):
        yield from ops.embedding(role, "tokens", role, add=True)
    yield _norm(ops, "embedding_norm")


def _norm(ops: Ops, role: str) -> Step:
    return ops.norm(role, "norm", "x", "x", "in_place")


def layer_steps(
    ops: Ops,
    layer: str,
    attention: KernelSpec,
    activation: Activation,
    *,
    norms_first: bool = False,
) -> Iterator[Step]:
    """Take "x" through the layer whose roles begin with `layer`.

    Norms come after the residual, or with `norms_first` before the branch, which then reads
    "normed".
    """
    source = "normed" if norms_first else "x"
    if norms_first:
        yield ops.norm(f"{layer}input_norm", "norm", "x", source, "copy")
    yield from ops.product(f"{layer}qkv", source, "qkv", _LINEAR)
    yield ops.step(attention, {"qkv": "qkv", "spans": "spans", "output": "attended"})
    yield from ops.product(f"{layer}output", "attended", "x", _RESIDUAL)
    if norms_first:
        yield ops.norm(f"{layer}mlp_norm", "norm", "x", source, "copy")
    else:
        yield _norm(ops, f"{layer}attention_output_norm")
    yield from ops.product(
        f"{layer}up", source, "activated", Epilogue(bias=True, activation=activation)
    )
    yield from ops.product(f"{layer}down", "activated", "x", _RESIDUAL)
    if not norms_first:
        yield _norm(ops, f"{layer}mlp_output_norm")


def _layers(spec: EncoderSpec, ops: Ops) -> Iterator[Step]:
    attention = ops.kernel(
        attention_bidirectional,
        "attention",
        n_heads=spec.n_heads,
        head_dim=spec.head_dim,
        max_tokens=spec.max_batch_tokens,
    )
    for index in range(spec.n_layers):
        yield from layer_steps(ops, f"layers.{index}.", attention, "gelu")


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
