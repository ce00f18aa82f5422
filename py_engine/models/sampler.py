"""The draw half of a decode step: its kernels, buffers and programs.

The forward half leaves f32 logits in "logits"; the draw leaves the token in "state", where the next
step reads it.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Mapping
from typing import Any

from py_engine.gpu.types import Buffer, Device, Dispatch, Kernel, KernelSpec, Program
from py_engine.kernels.sampling import sample
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.base import Draw, SamplingParams

_TOKEN_OFFSET = 4 * STATE_WORDS["STATE_TOKEN"]


def sampler_kernels(vocab_size: int) -> dict[str, KernelSpec]:
    """Return the sampler's kernels by role."""
    kernels = [sample("sample", vocab_size)]
    return {kernel.label: kernel for kernel in kernels}


def sampler_sizes(vocab_size: int) -> dict[str, int]:
    """Return the bytes of every buffer of the sampler, by name."""
    return {
        "logits": 4 * vocab_size,
        "probabilities": 4 * vocab_size,
        "state": 4 * len(STATE_WORDS),
        "sampling": 16,
    }


class Sampler:
    """Draws tokens from the logits that forward programs leave; owns none of its buffers."""

    def __init__(
        self, device: Device, kernels: Mapping[str, Kernel], buffers: Mapping[str, Buffer]
    ) -> None:
        self._device = device
        self._buffers = buffers
        self._chains: dict[tuple[Program, ...], Program] = {}
        self._sample = self._record(
            kernels, "sample", "logits", "sampling", "probabilities", "state"
        )

    def _record(self, kernels: Mapping[str, Kernel], role: str, *buffers: str) -> Program:
        bound = tuple(self._buffers[name] for name in buffers)
        return self._device.program([Dispatch(kernels[role], bound)], role)

    def start(self, sampling: SamplingParams) -> None:
        """Set how tokens are drawn from now on."""
        floats = array("f", [sampling.temperature, sampling.top_p]).tobytes()
        seed = (sampling.seed & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
        self._device.write_buffer(self._buffers["sampling"], 0, floats + seed)

    def draw(self, forward: Program | None = None, mask: Any = None) -> Awaitable[Draw]:
        """Enqueue `forward`, if any, and a draw from its logits, in one submit."""
        parts = (self._sample,) if forward is None else (forward, self._sample)
        program = self._chained(parts)
        return _token(program.submit_and_read(self._buffers["state"], _TOKEN_OFFSET))

    def _chained(self, parts: tuple[Program, ...]) -> Program:
        """Return the program of these parts, made when it is first asked for."""
        program = self._chains.get(parts)
        if program is None:
            program = self._chains[parts] = self._device.chain(parts, "step")
        return program


async def _token(reading: Awaitable[int]) -> Draw:
    return Draw(await reading)
