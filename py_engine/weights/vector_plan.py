"""From a vector's tensors in a file to its buffer of f32 and the way there."""

from __future__ import annotations

from collections.abc import Iterator

from py_engine.kernels.relay import convert_spec
from py_engine.weights.formats import FLOAT_TYPES
from py_engine.weights.parameters import Stored, VectorParameter, stored_blocks
from py_engine.weights.tensor_index import TensorIndex
from py_engine.weights.transfers import TensorLoad, source_runs


def plan_vector(
    parameter: VectorParameter, stored: Stored, index: TensorIndex
) -> Iterator[TensorLoad]:
    """Yield the ways of a vector's tensors into the buffer of its role.

    Errors: MissingTensorError, TensorShapeError.
    """
    begin, head_dim = 0, parameter.head_dim or 0
    for block in stored_blocks(parameter, stored):
        size, transform = block.size, block.transform
        record = index.typed(block.name, parameter.stored_shape or (size,), tuple(FLOAT_TYPES))
        as_stored = record.dtype == "F32" and transform in ("none", "interleaved_heads")
        kind, add_one = FLOAT_TYPES[record.dtype], transform == "add_one"
        yield TensorLoad(
            record=record,
            rows=size,
            columns=1,
            runs=tuple(source_runs(size, begin, transform, head_dim, len(parameter.block_sizes))),
            targets=((parameter.role,),),
            kernel=None if as_stored else convert_spec(kind, "f32", add_one=add_one),
            rope_pairs=head_dim if transform == "rope_pairs" else 0,
        )
        begin += size
