"""Verifies drafts of a reply: several tokens in one step, with a draw after each.

Row i of the batch is token i after those that the sequence has. Its draw is the one that decoding
would make after the tokens before it, with the same random number, so a draft changes no reply
(speculative decoding, Leviathan et al. 2023, where the draft is not itself a distribution).
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Buffer, BufferSlice, Device, Kernel, KernelSpec, Program
from py_engine.kernels.batch import MAX_BATCH, Batch
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.batch import (
    ROW_TABLE,
    ROW_TABLE_STRIDE,
    STATE_STRIDE,
    STATES,
    batch_rows,
    batched,
    compile_missing,
    create_batch,
    row_words,
)
from py_engine.models.decoder_steps import DecoderSteps, NextLogits
from py_engine.models.ops import Step
from py_engine.models.sampler import Roles, draw_roles
from py_engine.models.spec import DecoderSpec

Record = Callable[[Sequence[Step], str, Mapping[str, Buffer | BufferSlice]], Program]
"""Records steps, with a label, over a decoder's buffers and others."""


def longest_draft(spec: DecoderSpec) -> int:
    """Return how many tokens a model's drafts can have; 0 where it cannot verify any.

    The states of linear attention cannot be taken back, and a sliding window holds no more than a
    chunk's tokens past its end.
    """
    if spec.delta is not None:
        return 0
    return min(MAX_BATCH, spec.prefill_chunk_size) - 1


class Drafts:
    """Verifies the drafts of one decoder. What that takes is made when it is first asked for.

    `kernels` are the decoder's: those of the batch come to them. `record` is its `program`.
    """

    def __init__(
        self,
        device: Device,
        spec: DecoderSpec,
        steps: DecoderSteps,
        kernels: dict[KernelSpec, Kernel],
        record: Record,
    ) -> None:
        self._device = device
        self._spec = spec
        self._steps = steps
        self._kernels = kernels
        self._record = record
        self._forward: dict[int, NextLogits] = {}  # by the rows of a batch
        self._programs: dict[tuple[int, int, str], Program] = {}
        self._buffers: dict[str, Buffer] = {}  # of the largest batch

    async def prepare(self, n_tokens: int) -> int:
        """Get ready for drafts of up to `n_tokens`; return how many they can have.

        Raises OutOfMemoryError, DeviceLostError and ShaderCompilationError; the next call tries
        again.
        """
        most = max(0, min(n_tokens, longest_draft(self._spec)))
        batch = 1 << most.bit_length()  # few sizes, so that drafts of different lengths share them
        if most and batch not in self._forward:
            await self._make(batch)
        return most

    async def _make(self, batch: int) -> None:
        forward = self._steps.batch_logits(Batch(batch, is_draft=True))
        needed = (*forward, *self._draws(batch)["sample"])
        await compile_missing(self._device, needed, self._kernels)
        if batch > max(self._forward, default=0):
            made = await create_batch(self._device, self._spec, self._steps, batch, 1)
            self.forget_programs()
            destroy_buffers(self._buffers.values())
            self._buffers = made
            # Kernels get the sequence's part of each cache, and its `sampling` alone.
            rows = row_words(range(batch), [0] * batch, [0] * batch)
            self._device.write_buffer(made[ROW_TABLE], 0, rows)
        self._forward[batch] = forward

    def forget_programs(self) -> None:
        """Drop the programs, for a decoder's buffers were replaced."""
        self._programs.clear()

    def _draws(self, batch: int) -> Roles:
        return draw_roles(self._spec.active_vocab_size, self._steps.tuning, batch)

    def _program(self, batch: int, n_tokens: int, role: str) -> Program:
        """Return the program for sequences of up to `n_tokens`, made when it is first needed."""
        forward = self._forward[batch].of(n_tokens)
        key = batch, id(forward), role
        if key not in self._programs:
            rows = batch_rows(self._spec, batch, self._buffers)
            same = BufferSlice(self._buffers[ROW_TABLE], 0, ROW_TABLE_STRIDE)
            tables = {name: same for name in ("rows", *(c.rows for c in self._steps.caches))}
            others: dict[str, Buffer | BufferSlice] = {**self._buffers, **rows, **tables}
            steps = batched((*forward, *self._draws(batch)[role]), batch)
            self._programs[key] = self._record(steps, "draft", others)
        return self._programs[key]

    def run(
        self, token_ids: Sequence[int], position: int, n_draws: int, role: str
    ) -> Awaitable[list[int]]:
        """Append the token drawn last and a draft at `position`; return the draw after each.

        `n_draws` were made before; these have the role `draw_role`.
        """
        batch = min(batch for batch in self._forward if batch >= len(token_ids))
        states = array("I")
        for row in range(batch):
            # What a short draft leaves over does the last row's work once more.
            i = min(row, len(token_ids) - 1)
            states.extend((position + i, 1, token_ids[i], n_draws + i))
            states.extend([0] * (STATE_STRIDE - len(STATE_WORDS)))
        states_buffer = self._buffers[STATES]
        self._device.write_buffer(states_buffer, 0, states)
        program = self._program(batch, position + len(token_ids), role)
        reading = program.submit_and_read_bytes(states_buffer, 0, 4 * len(states))
        return _draws(reading, len(token_ids))

    def destroy(self) -> None:
        """Free the batch's buffers."""
        destroy_buffers(self._buffers.values())
        self._buffers = {}
        self._forward.clear()
        self._programs.clear()


async def _draws(reading: Awaitable[Any], n_rows: int) -> list[int]:
    words = array("I", await reading)
    return list(words[STATE_WORDS["STATE_TOKEN"] :: STATE_STRIDE][:n_rows])
