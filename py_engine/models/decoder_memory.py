"""What a decoder has on the GPU beside weights and KV cache: activations, RoPE tables, states."""

from __future__ import annotations

from collections.abc import Mapping

from py_engine.errors import LimitSupportError
from py_engine.gpu.types import Buffer, Device, Limits
from py_engine.kernels.attention_shape import rope_table, rope_table_bytes
from py_engine.kernels.batch import MAX_BATCH
from py_engine.kernels.sampling import SAMPLING_STRIDE, draw_scratch
from py_engine.kernels.vision import state_words
from py_engine.models.batch import STATE_STRIDE
from py_engine.models.decoder_ops import PREFILL, row_widths
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.delta_states import state_sizes
from py_engine.models.memory_plan import MemoryPlan
from py_engine.models.sampler import sampler_sizes
from py_engine.models.spec import DecoderSpec
from py_engine.weights.formats import is_plain


def require_chunks_fit(spec: DecoderSpec, limits: Limits) -> None:
    """Raise LimitSupportError unless a prefill chunk's activations and grids fit the GPU's limits.

    The text names the longest chunk that does.
    """
    chunk, row_bytes = spec.prefill_chunk_size, 4 * max(row_widths(spec).values())
    most = min(limits.max_storage_buffer_binding_size, limits.max_buffer_size)
    # Some kernels have a workgroup for each token.
    longest = min(most // row_bytes, limits.max_compute_workgroups_per_dimension)
    if chunk > longest:
        raise LimitSupportError(
            f"prefill_chunk_size {chunk} needs {chunk * row_bytes:,} bytes for the rows of its "
            f"tokens and {chunk:,} workgroups, but this GPU has buffers of {most:,} and "
            f"{limits.max_compute_workgroups_per_dimension:,} workgroups in a row. Set "
            f"prefill_chunk_size to at most {longest} in chat_opts."
        )


def most_sequences(spec: DecoderSpec) -> int:
    """Return how many sequences a model can have at once.

    Images lie where one sequence's prefill finds them, and LongRoPE changes tables that all share.
    """
    return 1 if spec.long_rope or spec.image_tokens else MAX_BATCH


def sequence_sizes(spec: DecoderSpec) -> dict[str, int]:
    """Return the bytes of what every sequence has of its own beside KV cache and state, by name."""
    return sampler_sizes(spec.active_vocab_size) | state_sizes(spec)


def working_sizes(spec: DecoderSpec, steps: DecoderSteps) -> dict[str, int]:
    """Return the bytes of every buffer that is neither a weight nor a KV cache, by name.

    Of what single rows and chunks can have, these are what the steps use.
    """
    chunk = spec.prefill_chunk_size
    rows = row_widths(spec)
    sizes = {
        **{name: 4 * size for name, size in rows.items()},
        **{f"{PREFILL}{name}": 4 * size * chunk for name, size in rows.items()},
        "prefill tokens": 4 * chunk,
        "history": 4 * spec.context_window_size,
        "split_parts": steps.split_bytes,
    }
    used = {name: size for name, size in sizes.items() if name in steps.buffers}
    tables = {
        f"rope {index}": rope_table_bytes(len(rope.inv_freq), spec.context_window_size)
        for index, rope in enumerate(spec.ropes)
    }
    sizes = {
        **used,
        **sequence_sizes(spec),
        **tables,
        **draw_scratch(spec.active_vocab_size, steps.tuning),
        "state": 4 * STATE_STRIDE * most_sequences(spec),
        "sampling": SAMPLING_STRIDE * most_sequences(spec),
    }
    if spec.image_tokens:
        n_rows = spec.image_slots * spec.image_tokens
        sizes |= {"images": 4 * spec.hidden_size * n_rows, "state": 4 * state_words(chunk)}
    return sizes


def decoder_memory(
    spec: DecoderSpec, steps: DecoderSteps, weight_bytes: int, quantization: str
) -> MemoryPlan:
    """Return what a decoder with so many bytes of weights, in `quantization`, takes."""
    return MemoryPlan(
        weights=weight_bytes,
        working=sum(working_sizes(spec, steps).values()),
        caches=[cache.shape for cache in steps.caches],
        context_window_size=spec.context_window_size,
        can_be_quantised=is_plain(quantization),
    )


def allocate(
    device: Device, spec: DecoderSpec, steps: DecoderSteps, buffers: dict[str, Buffer]
) -> None:
    """Add these buffers to `buffers`."""
    for name, nbytes in working_sizes(spec, steps).items():
        buffers[name] = device.create_buffer(nbytes, name)


class RopeTables:
    """The contents of the RoPE tables, which change with the length of a sequence for LongRoPE.

    `limit` is the most tokens that a sequence has before they change, 0 where they never do.
    """

    def __init__(self, device: Device, spec: DecoderSpec, buffers: Mapping[str, Buffer]) -> None:
        self._device = device
        self._spec = spec
        self._buffers = buffers
        self.limit = 0 if spec.long_rope is None else spec.long_rope.limit
        self._is_long = False
        self._write()

    def change_at(self, n_tokens: int) -> bool:
        """Return whether the tables must change before a sequence has `n_tokens`."""
        return not self._is_long and 0 < self.limit < n_tokens

    def most_appended(self, position: int, n_tokens: int) -> int:
        """Return how many of `n_tokens` come before the tables must change, at least 1."""
        return max(1, self.limit - position) if self.change_at(position + n_tokens) else n_tokens

    def can_keep(self, n_tokens: int) -> bool:
        """Return whether a sequence's first `n_tokens` are as they would be in any longer one."""
        return not self._is_long or n_tokens > self.limit

    def use_long(self) -> None:
        """Write the frequencies of long sequences."""
        self._use(True)

    def begin(self, n_tokens: int) -> None:
        """Write the frequencies of a new sequence that will have at least `n_tokens`."""
        self._use(0 < self.limit < n_tokens)

    def _use(self, is_long: bool) -> None:
        if self._is_long != is_long:
            self._is_long = is_long
            self._write()

    def _write(self) -> None:
        for index, rope in enumerate(self._spec.ropes):
            frequencies = rope.long.inv_freq if self._is_long and rope.long else rope.inv_freq
            table = rope_table(frequencies, self._spec.context_window_size, rope.factor)
            self._device.write_buffer(self._buffers[f"rope {index}"], 0, table)
