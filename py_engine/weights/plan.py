"""Which tensors a decoder needs, with their shapes and how they lie on the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from py_engine.kernels.formats import WeightFormat
from py_engine.models.spec import DecoderSpec
from py_engine.weights.formats import CODES_PER_WORD, GROUP_SIZE

Layout = Literal["u32", "f16", "f32"]


@dataclass(frozen=True)
class WeightSlot:
    """A tensor by its name in the model's files.

    `layout` is how its elements lie on the GPU: "u32" words as stored, "f16" halfs as stored (two
    to a u32), "f32" converted while loading.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout


@dataclass(frozen=True)
class Matrix:
    """A linear layer or an embedding table: `rows` outputs of `columns` inputs each."""

    name: str
    rows: int
    columns: int


def matrices(spec: DecoderSpec) -> list[Matrix]:
    """Return the matrices of a decoder in the order of its computation."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    found = [Matrix(spec.embedding, spec.vocab_size, hidden)]
    for layer in spec.layers:
        found += [
            Matrix(layer.qkv, spec.qkv_size, hidden),
            Matrix(layer.output, hidden, spec.n_heads * spec.head_dim),
            Matrix(layer.gate_up, 2 * inner, hidden),
            Matrix(layer.down, hidden, inner),
        ]
    if spec.lm_head is not None:
        found.append(Matrix(spec.lm_head, spec.vocab_size, hidden))
    return found


def vectors(spec: DecoderSpec) -> dict[str, int]:
    """Return the tensors of a decoder that are weights of norms or biases, with their lengths."""
    found: dict[str, int] = {}
    for layer in spec.layers:
        norms = (layer.input_norm, layer.post_attention_norm)
        found |= {f"{name}.weight": spec.hidden_size for name in norms}
        found |= {f"{name}.weight": spec.head_dim for name in layer.head_norms}
        if spec.qkv_bias:
            found[f"{layer.qkv}.bias"] = spec.qkv_size
    return found | {f"{spec.final_norm}.weight": spec.hidden_size}


def matrix_tensors(name: str, weight_format: WeightFormat) -> list[str]:
    """Return the names of the tensors that hold one matrix: its weights, or codes and scales."""
    if weight_format in ("q0f16", "q0f32"):
        return [f"{name}.weight"]
    return [f"{name}.q_weight", f"{name}.q_scale"]


def matrix_slots(matrix: Matrix, weight_format: WeightFormat) -> list[WeightSlot]:
    """Return the tensors that hold one matrix, in the order of `matrix_tensors`."""
    groups = -(-matrix.columns // GROUP_SIZE)
    words = (matrix.rows, groups * (GROUP_SIZE // CODES_PER_WORD))
    plain, scales = (matrix.rows, matrix.columns), (matrix.rows, groups)
    kinds: dict[WeightFormat, list[tuple[tuple[int, int], Layout]]] = {
        "q0f16": [(plain, "f16")],
        "q0f32": [(plain, "f32")],
        "q4f16_1": [(words, "u32"), (scales, "f16")],
        "q4f32_1": [(words, "u32"), (scales, "f32")],
    }
    names = matrix_tensors(matrix.name, weight_format)
    return [
        WeightSlot(name, shape, layout)
        for name, (shape, layout) in zip(names, kinds[weight_format], strict=True)
    ]


def weight_slots(spec: DecoderSpec) -> list[WeightSlot]:
    """Return every tensor of a decoder. Vectors are f32 in all formats: they are small."""
    slots = [WeightSlot(name, (size,), "f32") for name, size in vectors(spec).items()]
    for matrix in matrices(spec):
        slots += matrix_slots(matrix, spec.weight_format)
    return slots
