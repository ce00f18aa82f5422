"""Programs of several sequences' decode steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from py_engine.errors import DeviceError
from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Buffer, BufferSlice, Device, Dispatch, Kernel, KernelSpec, Program
from py_engine.kernels.batch import Batch
from py_engine.models.batch import (
    PER_ROW,
    ROW_TABLE,
    ROW_TABLE_STRIDE,
    STATES,
    batch_rows,
    batched,
    compile_missing,
    create_batch,
    row_name,
    row_steps,
    row_words,
)
from py_engine.models.cache_pool import CachePool
from py_engine.models.decoder_steps import DecoderSteps, NextLogits
from py_engine.models.kv_cache import KvCache
from py_engine.models.ops import Step
from py_engine.models.sampler import Roles, draw_roles, draw_steps, is_draw_alone
from py_engine.models.spec import DecoderSpec

MOST_PROGRAMS = 8
"""Recorded programs that are kept, each of other sequences or other ways to draw."""


@dataclass(frozen=True)
class Row:
    """One sequence's part of a step.

    `buffers` are its own, always the same object, beside those of its `cache`; `slot` is the place
    of its state in the buffer of all states; `roles` are the kernels of its draw. It has `n_tokens`
    with the one that it appends.
    """

    buffers: Mapping[str, Buffer | BufferSlice]
    cache: KvCache
    slot: int
    roles: tuple[str, ...]
    n_tokens: int

    @property
    def draws_together(self) -> bool:
        """Whether its draw has no other kernels than those that a batch has for all its rows."""
        return is_draw_alone(self.roles)


@dataclass(frozen=True)
class _Kept:
    """A program, with its rows, so that no others' buffers get the ids of theirs.

    `place` is its part of what tells kernels of their rows.
    """

    rows: Sequence[Row]
    place: int
    program: Program


class BatchPrograms:
    """Makes the programs of a model's batches, and keeps them.

    `shared` are the buffers of all sequences, and `pool` has those of their KV caches. `kernels`
    are the model's: those of batches come to them.
    """

    def __init__(
        self,
        device: Device,
        spec: DecoderSpec,
        steps: DecoderSteps,
        kernels: dict[KernelSpec, Kernel],
        shared: Mapping[str, Buffer],
        pool: CachePool,
    ) -> None:
        self._device = device
        self._spec = spec
        self._steps = steps
        self._kernels = kernels
        self._shared = shared
        self._pool = pool
        self._version = pool.version  # that the programs are of
        self._forward: dict[int, NextLogits] = {}  # by the rows of a batch
        self._failed: set[int] = set()
        self._is_destroyed = False
        self._buffers: dict[str, Buffer] = {}  # of the largest batch
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()

    def has(self, n_rows: int) -> bool:
        """Return whether there can be programs of so many rows."""
        return _batch(n_rows) in self._forward

    def may_have(self, n_rows: int) -> bool:
        """Return whether `prepare` is worth a try: it is tried once."""
        return not self._is_destroyed and _batch(n_rows) not in self._failed

    async def prepare(self, n_rows: int) -> None:
        """Compile what programs of so many rows need, and make room for it.

        Raises OutOfMemoryError, DeviceLostError and ShaderCompilationError.
        """
        batch = _batch(n_rows)
        steps = self._steps.batch_logits(Batch(batch))
        try:
            draws = self._draws_together(batch)["sample"]
            needed = (*steps, *draws)
            await compile_missing(self._device, needed, self._kernels)
            if batch > max(self._forward, default=0):
                # Each sequence has its own state.
                n_rows = MOST_PROGRAMS * (1 + len(self._pool.layers))
                made = await create_batch(
                    self._device, self._spec, self._steps, batch, n_rows, without=("state",)
                )
                if self._is_destroyed:
                    destroy_buffers(made.values())
                    return
                self.forget()
                destroy_buffers(self._buffers.values())
                self._buffers = made
        except DeviceError:
            self._failed.add(batch)
            raise
        self._forward[batch] = steps

    def program(self, rows: Sequence[Row]) -> Program:
        """Return the program of these rows, at least two; there are programs of so many."""
        if self._version != self._pool.version:
            self.forget()
            self._version = self._pool.version
        rows = sorted(rows, key=lambda row: not row.draws_together)  # these come first
        # Attention that shares no keys out needs all rows to be short.
        forward = self._forward[_batch(len(rows))].of(max(row.n_tokens for row in rows))
        key = (id(forward), *((id(row.buffers), row.roles) for row in rows))
        if key not in self._kept:
            place = len(self._kept)
            if place == MOST_PROGRAMS:
                place = self._kept.popitem(last=False)[1].place
            self._kept[key] = _Kept(rows, place, self._record(rows, place, forward))
        self._kept.move_to_end(key)
        return self._kept[key].program

    def _record(self, rows: Sequence[Row], place: int, forward: tuple[Step, ...]) -> Program:
        batch = _batch(len(rows))
        per_row = PER_ROW | rows[0].buffers.keys()
        buffers: dict[str, Buffer | BufferSlice] = {
            **self._shared,
            **self._buffers,
            **self._pool.buffers,
            **self._tables(rows, place),
            STATES: self._shared["state"],
        }
        for number, row in enumerate(rows):
            buffers |= {row_name(name, number): own for name, own in row.buffers.items()}
        # The logits among them are the batch's, whose head writes all of them at once.
        buffers |= batch_rows(self._spec, batch, self._buffers)
        steps = (*batched(forward, len(rows), per_row), *self._draws(rows, per_row))
        return self._device.program(
            [
                Dispatch(self._kernels[s.kernel], tuple(buffers[n] for n in s.buffers), s.n_tokens)
                for s in steps
            ],
            "batch step",
        )

    def _draws(self, rows: Sequence[Row], per_row: Collection[str]) -> Iterator[Step]:
        """Draw from the logits of the rows that draw together, which come first, then each other's.

        What samples takes the likeliest token, too, where a row's temperature asks for it.
        """
        roles = {row.roles[0] for row in rows if row.draws_together}
        n_together = sum(row.draws_together for row in rows)
        if roles:
            draws = self._draws_together(_batch(len(rows)))
            yield from batched(draws["sample" if "sample" in roles else "greedy"], n_together)
        for number, row in enumerate(rows[n_together:], n_together):
            draw = draw_steps(self._spec.active_vocab_size, self._steps.tuning, row.roles)
            yield from row_steps(draw, number, per_row)

    def _draws_together(self, batch: int) -> Roles:
        return draw_roles(self._spec.active_vocab_size, self._steps.tuning, batch)

    def _tables(self, rows: Sequence[Row], place: int) -> dict[str, BufferSlice]:
        """Write where the rows' sequences are, in each cache too; return what tells kernels."""
        tables = {"rows": [0] * len(rows)}
        for layer in self._pool.layers:
            tables[layer.cache.rows] = [layer.regions[row.cache].first for row in rows]
        found = {}
        slots, size = [row.slot for row in rows], ROW_TABLE_STRIDE
        for number, (name, first_slots) in enumerate(tables.items(), place * len(tables)):
            part = BufferSlice(self._buffers[ROW_TABLE], number * size, size)
            words = row_words(slots, first_slots, slots)
            self._device.write_buffer(part.buffer, part.offset, words)
            found[name] = part
        return found

    def forget(self) -> None:
        """Drop the programs that were made."""
        self._kept.clear()

    def destroy(self) -> None:
        """Free the batches' buffers; there are no more programs."""
        self._is_destroyed = True
        self.forget()
        self._forward.clear()
        destroy_buffers(self._buffers.values())
        self._buffers = {}


def _batch(n_rows: int) -> int:
    """Return the rows of the products that take so many: few sizes, which they share."""
    return 1 << (n_rows - 1).bit_length()
