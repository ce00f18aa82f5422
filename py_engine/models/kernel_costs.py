"""What the kernels of a decode step must read and compute at the least, from their shapes alone."""

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

_DRAW = ("survey", "narrow", "sample")


@dataclass(frozen=True)
class KernelCost:
    """A kernel of a step, its dispatches there, and what one of them costs (the mean of all).

    `nbytes` must be read: weights with their scales, keys and values of the tokens that are seen,
    recurrent states, of an embedding one row, of the draw its logits; activations are left out.
    `operations` are additions and multiplications of products, attention and linear attention; 0
    for kernels that have few. `shape` tells kernels of one label apart.
    """

    kernel: KernelSpec
    steps: tuple[Step, ...]
    shape: str
    nbytes: int
    operations: int


def step_of_token(spec: DecoderSpec, steps: DecoderSteps) -> tuple[Step, ...]:
    """Return a decode step's dispatches in their order, the draw the last one."""
    return (*steps.next_logits, *draw_steps(spec.active_vocab_size, steps.tuning))


def kernel_costs(
    spec: DecoderSpec, steps: DecoderSteps, dispatches: Sequence[Step], position: int
) -> list[KernelCost]:
    """Return the kernels of some of a decode step's dispatches, in the order of their first ones.

    Before the step the sequence has `position` tokens.
    """
    by_kernel: dict[int, list[Step]] = {}
    for step in dispatches:
        by_kernel.setdefault(id(step.kernel), []).append(step)
    costs = _Costs(spec, steps, position)
    return [costs.of(own) for own in by_kernel.values()]


class _Costs:
    """Costs of a decoder's kernels at a position."""

    def __init__(self, spec: DecoderSpec, steps: DecoderSteps, position: int) -> None:
        self._delta = spec.delta
        self._position = position
        self._activations = working_sizes(spec, steps).keys() - state_sizes(spec).keys()
        self._caches = {name: cache.shape for cache in steps.caches for name in (cache.k, cache.v)}

    def of(self, steps: Sequence[Step]) -> KernelCost:
        """Return the cost of a kernel, given its dispatches."""
        kernel, nbytes = steps[0].kernel, sum(map(self._bytes_of, steps)) // len(steps)
        shape, operations = self._shape_and_operations(steps[0])
        return KernelCost(kernel, tuple(steps), shape, nbytes, operations)

    def _bytes_of(self, step: Step) -> int:
        sizes = {
            name: self._cache_bytes(name) if name in self._caches else binding.nbytes or 0
            for binding, name in zip(step.kernel.bindings, step.buffers, strict=True)
        }
        if step.kernel.name in _DRAW:
            return sizes.get("logits", 0)
        held = sum(size for name, size in sizes.items() if name not in self._activations)
        # Of a table in several parts one has the row.
        is_table = step.kernel.name == "embed"
        return held // int(step.kernel.constants["TABLE_ROWS"]) if is_table else held

    def _cache_bytes(self, name: str) -> int:
        shape = self._caches[name]
        return self._keys(shape) * shape.slot_bytes

    def _keys(self, shape: AttentionShape) -> int:
        """Return how many keys a query sees, its own included."""
        n_tokens = self._position + 1
        return n_tokens if shape.window is None else min(n_tokens, shape.window.size)

    def _shape_and_operations(self, step: Step) -> tuple[str, int]:
        kernel = step.kernel
        if kernel.name == "gemv":
            rows, columns = int(kernel.constants["ROWS"]), int(kernel.constants["COLUMNS"])
            return f"{rows} x {columns}", 2 * rows * columns
        if kernel.name == "gated_delta":
            assert self._delta is not None
            return f"{self._delta.n_value_heads} heads", _delta_operations(self._delta)
        attention = next((self._caches[n] for n in step.buffers if n in self._caches), None)
        if attention is None:
            return "", 0
        n_heads = attention.heads_in_cache * (attention.n_heads // attention.n_kv_heads)
        keys = self._keys(attention)
        return f"{n_heads} heads, {keys} keys", 4 * n_heads * attention.head_dim * keys


def _delta_operations(shape: DeltaShape) -> int:
    """Count the decay of the memory, k @ memory, the outer product, q @ memory; the convolution."""
    of_head = 7 * shape.key_dim * shape.value_dim + 2 * shape.head_channels * shape.conv_size
    return shape.n_value_heads * of_head
