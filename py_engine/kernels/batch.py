"""What kernels know of a batch: tokens that one dispatch takes together."""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.gpu.types import Binding, slice_stride

MAX_BATCH = 8
"""Tokens of a batch."""


def batch_stride(width: int) -> int:
    """Return the floats from one token's row to the next in a batch: each can be a slice."""
    return slice_stride(4 * width) // 4


@dataclass(frozen=True)
class Batch:
    """A step of several tokens, at most `size`, whose rows of activations are `batch_stride` apart.

    They are the next ones of a sequence each, or one sequence's, one after the other: a draft's.
    `rows` has four words for each: where its `state` begins in the buffer of all, the first slot of
    its cache in that buffer, which `sampling` of the buffer of all is its, and one of no use. A
    draft's keys are appended before any row attends.
    """

    size: int
    is_draft: bool = False


ROWS = Binding("rows", "uniform", f"array<vec4u, {MAX_BATCH}>")

ROWS_BYTES = 16 * MAX_BATCH
"""Bytes of the buffer `rows`."""

STATES = Binding("state", "read", "array<u32>")
