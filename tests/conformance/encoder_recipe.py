"""Tiny random BERT models, made of NumPy alone, and what they are given to read."""

from __future__ import annotations

from typing import Any

import numpy as np

from py_engine.weights.quantization import F32
from tests.conformance.cases import Case
from tests.conformance.recipe import draw_uniform

LENGTHS = (1, 40, 7, 19)
"""Tokens of the sequences of a batch; the second fills the context window."""

TEXTS = (
    "A dog ran over the green hill.",
    "The dog ran over a hill!",
    "Every night the old captain counts his money, coin by coin, in the dark harbour.",
    "naïve café: 日本語 🙂",
    "w",
)
"""What the case `bert_text_q4f16` reads, with special tokens around each."""


def _bert(
    hidden: int, inner: int, heads: int, layers: int, vocab: int, **fields: Any
) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
        "max_position_embeddings": LENGTHS[1],
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        **fields,
    }


TEXT_CASE = "bert_text_q4f16"

ENCODER_CASES = (
    Case("bert_arctic_shape_q0f32", "q0f32", _bert(384, 1536, 12, 2, 301)),
    Case("bert_one_layer_q0f16", "q0f16", _bert(160, 96, 5, 1, 259, type_vocab_size=1)),
    Case("bert_odd_heads_q4f16", "q4f16_1", _bert(96, 224, 8, 3, 203, layer_norm_eps=1e-5)),
    Case("bert_one_head_q4f32", "q4f32_1", _bert(64, 128, 1, 2, 515)),
    Case(TEXT_CASE, "q4f16_1", _bert(64, 256, 4, 2, 400, max_position_embeddings=64)),
)


def encoder_case(name: str) -> Case:
    """Return a case by its name."""
    return next(case for case in ENCODER_CASES if case.name == name)


def encoder_weight_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a BertModel's tensors by name, in the order in which they are drawn."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    linears = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    norms = ["embeddings.LayerNorm"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name, shape in linears.items():
            shapes[f"{layer}.{name}.weight"] = shape
            shapes[f"{layer}.{name}.bias"] = shape[:1]
    for norm in norms:
        shapes |= {f"{norm}.weight": (hidden,), f"{norm}.bias": (hidden,)}
    return shapes


def make_encoder_weights(case: Case) -> dict[str, F32]:
    """Draw a checkpoint's weights, before any quantisation."""
    bits = np.random.PCG64(2026)
    shapes = encoder_weight_shapes(case.config)
    return {name: _draw(bits, name, shape) for name, shape in shapes.items()}


def make_sequences(case: Case) -> list[list[int]]:
    """Draw a batch of token ids."""
    raw = iter(np.random.PCG64(7).random_raw(sum(LENGTHS)))
    return [[int(next(raw) % case.config["vocab_size"]) for _ in range(n)] for n in LENGTHS]


def _draw(bits: np.random.PCG64, name: str, shape: tuple[int, ...]) -> F32:
    uniform = draw_uniform(bits, shape)
    if len(shape) == 1:
        centre, spread = (1.0, 0.3) if name.endswith("LayerNorm.weight") else (0.0, 0.3)
        return (centre + spread * uniform).astype(np.float32)
    # Queries and keys are larger, so that attention is peaked.
    gain = {"query": 2.0, "key": 2.0}.get(name.split(".")[-2], 1.0)
    return (gain * np.sqrt(3.0 / shape[1]) * uniform).astype(np.float32)
