"""Which tensors an encoder needs, with their shapes and how they lie on the GPU."""

from __future__ import annotations

from py_engine.models.encoder_spec import EncoderSpec
from py_engine.weights.plan import Matrix, WeightSlot, matrix_slots


def encoder_matrices(spec: EncoderSpec) -> list[Matrix]:
    """Return the matrices of an encoder in the order of its computation."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    found = [
        Matrix(spec.word_embeddings, spec.vocab_size, hidden),
        Matrix(spec.position_embeddings, spec.n_positions, hidden),
        Matrix(spec.token_type_embeddings, spec.n_token_types, hidden),
    ]
    for layer in spec.layers:
        found += [
            Matrix(layer.qkv, 3 * hidden, hidden),
            Matrix(layer.attention_output, hidden, hidden),
            Matrix(layer.intermediate, inner, hidden),
            Matrix(layer.output, hidden, inner),
        ]
    return found


def encoder_vectors(spec: EncoderSpec) -> dict[str, int]:
    """Return the tensors that are biases or weights of norms, with their lengths."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    norms = [spec.embedding_norm]
    found: dict[str, int] = {}
    for layer in spec.layers:
        norms += [layer.attention_norm, layer.output_norm]
        found |= {
            f"{layer.qkv}.bias": 3 * hidden,
            f"{layer.attention_output}.bias": hidden,
            f"{layer.intermediate}.bias": inner,
            f"{layer.output}.bias": hidden,
        }
    return found | {f"{norm}.{part}": hidden for norm in norms for part in ("weight", "bias")}


def encoder_slots(spec: EncoderSpec) -> list[WeightSlot]:
    """Return every tensor of an encoder. Vectors are f32 in all formats: they are small."""
    slots = [WeightSlot(name, (size,), "f32") for name, size in encoder_vectors(spec).items()]
    for matrix in encoder_matrices(spec):
        slots += matrix_slots(matrix, spec.weight_format)
    return slots
