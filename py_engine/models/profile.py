"""Times the kernels of a decode step of a loaded model, over its own weights and KV cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from py_engine.gpu.rates import Rates, RatesClock, measure_rates
from py_engine.gpu.types import Clock
from py_engine.models.base import SamplingParams
from py_engine.models.decoder import Decoder
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.kernel_costs import KernelCost, kernel_costs, step_of_token
from py_engine.models.ops import Step

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
            "kernel": cost.kernel.label,
            "shape": cost.shape,
            "count": len(cost.steps),
            "seconds": seconds,
            "nbytes": cost.nbytes,
            "operations": cost.operations,
            "bandwidth_fraction": cost.nbytes * per_second / rates.bytes_per_s,
            "arithmetic_fraction": cost.operations * per_second / rates.operations_per_s,
        }


@dataclass(frozen=True)
class StepProfile:
    """The step of a sequence that has `n_tokens`, kernel by kernel, and the adapter's rates.

    `step_seconds` are those of all dispatches in one pass. Of these, in their order, `dispatches`
    has the number of the kernel among `kernels` and the layer's, None outside of layers.
    `has_timestamps` tells whether the GPU's own clock was read.
    """

    adapter: str
    has_timestamps: bool
    n_tokens: int
    step_seconds: float
    rates: Rates
    kernels: tuple[KernelTiming, ...]
    dispatches: tuple[tuple[int, int | None], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "adapter": self.adapter,
            "has_timestamps": self.has_timestamps,
            "n_tokens": self.n_tokens,
            "step_seconds": self.step_seconds,
            "copy_bytes_per_s": self.rates.copy_bytes_per_s,
            "read_bytes_per_s": self.rates.read_bytes_per_s,
            "operations_per_s": self.rates.operations_per_s,
            "kernels": [timing.to_dict(self.rates) for timing in self.kernels],
            "dispatches": [{"kernel": each, "layer": layer} for each, layer in self.dispatches],
        }


async def profile_step(
    decoder: Decoder,
    clock: RatesClock,
    n_tokens: int,
    sampling: SamplingParams,
    before_each: Callable[[], None],
) -> StepProfile:
    """Time each kernel of the step of a sequence of `n_tokens`, at least 1 and less than fit.

    The sequence is a new one, and of no use afterwards. `before_each` runs before each piece of
    work; what it raises ends the profile.
    Raises OutOfMemoryError, and the errors of the device.
    """
    device = decoder.device
    decoder.start(sampling, prompt_tokens=n_tokens)
    for first in range(0, n_tokens, decoder.prefill_chunk_size):
        before_each()
        chunk = range(first, min(first + decoder.prefill_chunk_size, n_tokens))
        await decoder.prefill([i % decoder.vocab_size for i in chunk])
    await decoder.sample()
    before_each()
    await decoder.reserve(1)
    dispatches = step_of_token(decoder.spec, decoder.steps)
    forward = await clock.seconds(decoder.program(decoder.steps.next_logits, "step"))
    kernels = await time_kernels(decoder, clock, dispatches, n_tokens, before_each)
    before_each()
    return StepProfile(
        adapter=str(device.info),
        has_timestamps="timestamp-query" in device.features,
        n_tokens=n_tokens,
        step_seconds=forward + kernels[-1].seconds,
        rates=await measure_rates(device, clock),
        kernels=tuple(kernels),
        dispatches=tuple(_numbered(dispatches, decoder.steps, kernels)),
    )


async def time_kernels(
    decoder: Decoder,
    clock: Clock,
    dispatches: Sequence[Step],
    position: int,
    before_each: Callable[[], None] = lambda: None,
) -> list[KernelTiming]:
    """Time the kernels of `dispatches`, each in a pass of all its dispatches.

    The decoder's sequence has `position` tokens and room for one more; a draw moves it, and so
    comes last. What the kernels compute is of no use.
    """
    timings = []
    for cost in kernel_costs(decoder.spec, decoder.steps, dispatches, position):
        before_each()
        program = decoder.program(cost.steps, cost.kernel.label)
        timings.append(KernelTiming(cost, await clock.seconds(program) / len(cost.steps)))
    return timings


def _numbered(
    dispatches: Sequence[Step], steps: DecoderSteps, kernels: Sequence[KernelTiming]
) -> Iterator[tuple[int, int | None]]:
    """Return the number of each dispatch's kernel, and its layer's."""
    numbers = {id(timing.cost.kernel): number for number, timing in enumerate(kernels)}
    in_layers = {id(step) for step in steps.next_logits} - {id(step) for step in steps.first_logits}
    layer = None
    for step in dispatches:
        found = _LAYER.search(" ".join(step.buffers))
        # One that names no layer, such as attention's second half, belongs to the one before.
        layer = int(found[1]) if found else layer
        yield numbers[id(step.kernel)], layer if id(step) in in_layers else None
