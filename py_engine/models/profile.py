"""Times the kernels of a loaded model, over its own weights and KV cache: prefill and decode."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from py_engine.gpu.rates import Rates, RatesClock, measure_rates
from py_engine.gpu.types import Clock, Program
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.decoder_ops import PREFILL
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.kernel_costs import KernelCost, kernel_costs, step_of_token
from py_engine.models.ops import Step
from py_engine.models.sampler import draw_role

_LAYER = re.compile(r"(?:layers\.|k_cache |delta_memory )(\d+)")


@dataclass(frozen=True)
class KernelTiming:
    """The seconds of one dispatch of a kernel, and what it costs."""

    cost: KernelCost
    seconds: float

    def to_dict(self, rates: Rates) -> dict[str, Any]:
        """Return it as JSON values, with the fractions of an adapter's rates."""
        cost, seconds = self.cost, self.seconds
        # Browsers round timestamps.
        per_second = 1 / seconds if seconds else 0.0
        return {
            "kernel": cost.kernel.label.removeprefix(PREFILL),
            "shape": cost.shape,
            "count": len(cost.steps),
            "seconds": seconds,
            "nbytes": cost.nbytes,
            "operations": cost.operations,
            "bandwidth_fraction": cost.nbytes * per_second / rates.bytes_per_s,
            "arithmetic_fraction": cost.operations * per_second / rates.operations_per_s,
        }


@dataclass(frozen=True)
class PhaseProfile:
    """A prefill chunk or a decode step, kernel by kernel: `n_tokens` after `position` others.

    `seconds` are those of all dispatches in one pass. Of these, in their order, `dispatches`
    has the number of the kernel among `kernels` and the layer's, None outside of layers.
    """

    position: int
    n_tokens: int
    seconds: float
    kernels: tuple[KernelTiming, ...]
    dispatches: tuple[tuple[int, int | None], ...]

    def to_dict(self, rates: Rates) -> dict[str, Any]:
        """Return it as JSON values, with the fractions of an adapter's rates."""
        return {
            "position": self.position,
            "n_tokens": self.n_tokens,
            "seconds": self.seconds,
            "kernels": [timing.to_dict(rates) for timing in self.kernels],
            "dispatches": [{"kernel": each, "layer": layer} for each, layer in self.dispatches],
        }


@dataclass(frozen=True)
class KernelProfile:
    """The chunk that brings a sequence to its tokens, the step after it, and the adapter's rates.

    `has_timestamps` tells whether the GPU's own clock was read.
    """

    adapter: str
    has_timestamps: bool
    rates: Rates
    prefill: PhaseProfile
    decode: PhaseProfile

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "adapter": self.adapter,
            "has_timestamps": self.has_timestamps,
            "n_tokens": self.decode.position,
            "copy_bytes_per_s": self.rates.copy_bytes_per_s,
            "read_bytes_per_s": self.rates.read_bytes_per_s,
            "operations_per_s": self.rates.operations_per_s,
            "prefill": self.prefill.to_dict(self.rates),
            "decode": self.decode.to_dict(self.rates),
        }


async def profile_kernels(
    decoder: Decoder,
    clock: RatesClock,
    n_tokens: int,
    sampling: SamplingParams,
    before_each: Callable[[], None],
) -> KernelProfile:
    """Time the last chunk of a prompt of `n_tokens`, and the step after it, kernel by kernel.

    They are at least 1 and less than fit. The chunk has as many as one can have, and the prompt.
    The sequence is a new one, and of no use afterwards. `before_each` runs before each piece of
    work; what it raises ends the profile.
    Raises OutOfMemoryError, and the errors of the device.
    """
    device, steps = decoder.device, decoder.steps
    size = decoder.prefill_chunk_size
    position = max(0, n_tokens - size)
    # It knows of no prompt, and so does not split the chunk to copy states in between.
    decoder.start(sampling)
    await decoder.reserve(1)  # after which nothing compiles that would be measured as well
    for first, end in pairwise((*range(0, position, size), position, n_tokens)):
        before_each()
        await decoder.prefill([i % decoder.vocab_size for i in range(first, end)])
    chunk = n_tokens - position
    prefill = await _phase(decoder, clock, steps.prefill, position, chunk, before_each)
    await decoder.sample()
    before_each()
    await decoder.reserve(1)
    token = step_of_token(decoder.spec, steps, n_tokens, draw_role(sampling))
    decode = await _phase(decoder, clock, token, n_tokens, 1, before_each)
    before_each()
    return KernelProfile(
        adapter=str(device.info),
        has_timestamps="timestamp-query" in device.features,
        rates=await measure_rates(device, clock),
        prefill=prefill,
        decode=decode,
    )


async def _phase(
    decoder: Decoder,
    clock: Clock,
    dispatches: Sequence[Step],
    position: int,
    n_tokens: int,
    before_each: Callable[[], None],
) -> PhaseProfile:
    """Time a pass of all dispatches but the draw, then each kernel, where the sequence stands."""
    before_each()
    forward = [step for step in dispatches if not _is_draw(step)]
    seconds = await clock.seconds(_program(decoder, forward, "all", n_tokens))
    kernels = await time_kernels(decoder, clock, dispatches, position, n_tokens, before_each)
    seconds += sum(each.seconds for each in kernels if _is_draw(each.cost.steps[0]))
    numbered = tuple(_numbered(dispatches, decoder.steps, kernels))
    return PhaseProfile(position, n_tokens, seconds, tuple(kernels), numbered)


async def time_kernels(
    decoder: Decoder,
    clock: Clock,
    dispatches: Sequence[Step],
    position: int,
    n_tokens: int = 1,
    before_each: Callable[[], None] = lambda: None,
) -> list[KernelTiming]:
    """Time the kernels of `dispatches`, each in a pass of all its dispatches.

    The decoder's `state` is at `position`, before a step or a chunk of `n_tokens`, and there is
    room for them; a draw moves it, and so comes last. What the kernels compute is of no use.
    """
    timings = []
    for cost in kernel_costs(decoder.spec, decoder.steps, dispatches, position, n_tokens):
        before_each()
        program = _program(decoder, cost.steps, cost.kernel.label, n_tokens)
        timings.append(KernelTiming(cost, await clock.seconds(program) / len(cost.steps)))
    return timings


def _program(decoder: Decoder, steps: Sequence[Step], label: str, n_tokens: int) -> Program:
    program = decoder.program(steps, label)
    program.set_n_tokens(n_tokens)
    return program


def _is_draw(step: Step) -> bool:
    return step.kernel.name == "sample"


def _numbered(
    dispatches: Sequence[Step], steps: DecoderSteps, kernels: Sequence[KernelTiming]
) -> Iterator[tuple[int, int | None]]:
    """Return the number of each dispatch's kernel, and its layer's."""
    numbers = {id(timing.cost.kernel): number for number, timing in enumerate(kernels)}
    of_head = {id(step) for step in steps.first_logits}
    in_layers = {id(step) for step in steps} - of_head
    layer = None
    for step in dispatches:
        found = _LAYER.search(" ".join(step.buffers))
        # One that names no layer, such as attention's second half, belongs to the one before.
        layer = int(found[1]) if found else layer
        yield numbers[id(step.kernel)], layer if id(step) in in_layers else None
