"""What the kernels of decode and prefill must read and compute at the least, by shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.kernels.delta import DeltaShape
from py_engine.models.decoder_memory import working_sizes
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.delta_states import state_sizes
from py_engine.models.ops import Step
from py_engine.models.sampler import draw_steps
from py_engine.models.spec import DecoderSpec

_PRODUCTS = ("gemv", "gemm")
_DRAW = ("survey", "narrow", "sample")


@dataclass(frozen=True)
class KernelCost:
    """A kernel, its dispatches, and what one of them costs (the mean of all).

    `nbytes` must be read: weights with their scales, keys and values of the tokens that are seen,
    recurrent states that there are, of an embedding a row for each token, of the draw its logits;
    activations are left out. `operations` are additions and multiplications of products, attention
    and linear attention; 0 for kernels that have few. `shape` tells kernels of one label apart.
    """

    kernel: KernelSpec
    steps: tuple[Step, ...]
    shape: str
    nbytes: int
    operations: int


def step_of_token(
    spec: DecoderSpec, steps: DecoderSteps, position: int, role: str
) -> tuple[Step, ...]:
    """Return a decode step's dispatches in their order, after `position` tokens.

    The last ones are those of the draw, which has this role (`draw_role`).
    """
    forward = steps.next_logits.of(position + 1)
    return (*forward, *draw_steps(spec.active_vocab_size, steps.tuning, (role,)))


def kernel_costs(
    spec: DecoderSpec,
    steps: DecoderSteps,
    dispatches: Sequence[Step],
    position: int,
    n_tokens: int = 1,
) -> list[KernelCost]:
    """Return the kernels of some dispatches, in the order of their first ones.

    They are those of a decode step, or of a prefill chunk of `n_tokens`, none of them an image's.
    The sequence has `position` tokens before.
    """
    by_kernel: dict[int, list[Step]] = {}
    for step in dispatches:
        by_kernel.setdefault(id(step.kernel), []).append(step)
    costs = _Costs(spec, steps, position, n_tokens)
    return [costs.of(own) for own in by_kernel.values()]


class _Costs:
    """Costs of a decoder's kernels for some tokens at a position."""

    def __init__(
        self, spec: DecoderSpec, steps: DecoderSteps, position: int, n_tokens: int
    ) -> None:
        self._delta = spec.delta
        self._position = position
        self._n_tokens = n_tokens
        self._caches = {name: cache.shape for cache in steps.caches for name in (cache.k, cache.v)}
        # At a sequence's first position there are no states to read.
        states = state_sizes(spec).keys() if position else ()
        self._unweighed = (working_sizes(spec, steps).keys() - states) | self._caches.keys()

    def of(self, steps: Sequence[Step]) -> KernelCost:
        """Return the cost of a kernel, given its dispatches."""
        kernel, nbytes = steps[0].kernel, sum(map(self._bytes_of, steps)) // len(steps)
        shape, operations = self._shape_and_operations(steps[0])
        return KernelCost(kernel, tuple(steps), shape, nbytes, operations)

    def _bytes_of(self, step: Step) -> int:
        sizes = {
            name: binding.nbytes or 0
            for binding, name in zip(step.kernel.bindings, step.buffers, strict=True)
        }
        if step.kernel.name in _DRAW:
            return sizes.get("logits", 0)
        held = sum(size for name, size in sizes.items() if name not in self._unweighed)
        if step.kernel.name == "embed":
            # Of a table in several parts one has the row.
            return held * self._n_tokens // int(step.kernel.constants["TABLE_ROWS"])
        return held + sum(self._keys(seen) * seen.slot_bytes for seen in self._attended(step))

    def _attended(self, step: Step) -> list[AttentionShape]:
        """Return the shapes of the caches that a dispatch reads, one for keys, one for values."""
        if step.kernel.name == "rope_append":
            return []
        return [self._caches[name] for name in step.buffers if name in self._caches]

    def _keys(self, shape: AttentionShape) -> int:
        """Return how many keys the queries see, their own included."""
        return _seen(shape, self._position) + self._n_tokens - 1

    def _pairs(self, shape: AttentionShape) -> int:
        """Return how many pairs of a query and a key that it sees there are."""
        positions = range(self._position, self._position + self._n_tokens)
        return sum(_seen(shape, position) for position in positions)

    def _shape_and_operations(self, step: Step) -> tuple[str, int]:
        kernel = step.kernel
        if kernel.name in _PRODUCTS:
            rows, columns = int(kernel.constants["ROWS"]), int(kernel.constants["COLUMNS"])
            joined = kernel.constants.get("PARTS")
            parts = f", {joined} parts" if joined else ""
            return f"{rows} x {columns}{parts}", 2 * rows * columns * self._n_tokens
        if kernel.name == "gated_delta":
            assert self._delta is not None
            operations = _delta_operations(self._delta) * self._n_tokens
            return f"{self._delta.n_value_heads} heads", operations
        attention = next(iter(self._attended(step)), None)
        if attention is None:
            return "", 0
        n_heads = attention.heads_in_cache * (attention.n_heads // attention.n_kv_heads)
        operations = 4 * n_heads * attention.head_dim * self._pairs(attention)
        return f"{n_heads} heads, {self._keys(attention)} keys", operations


def _seen(shape: AttentionShape, position: int) -> int:
    """Return how many keys the query at a position sees, its own included."""
    return position + 1 if shape.window is None else min(position + 1, shape.window.size)


def _delta_operations(shape: DeltaShape) -> int:
    """Count the decay of the memory, k @ memory, the outer product, q @ memory; the convolution."""
    of_head = 7 * shape.key_dim * shape.value_dim + 2 * shape.head_channels * shape.conv_size
    return shape.n_value_heads * of_head
