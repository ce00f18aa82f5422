"""What is settled of a model's kernels once its weights are there, by running them over these:
whether activations may be in 8 bits, and which forms are the fastest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from py_engine.gpu.types import Buffer, Device
from py_engine.kernels.tuning import Tuning, tuning_for
from py_engine.models.base import LoadProgress
from py_engine.models.batch import compile_missing
from py_engine.models.decoder_build import Improve
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.form_choice import FormChooser, StepsIn
from py_engine.models.quality_gate import Programs, QualityGate, judge, warn_of
from py_engine.models.spec import DecoderSpec
from py_engine.weights.checkpoint import Checkpoint

TokenIds = Callable[[], Awaitable[Sequence[int]]]
"""Returns the ids of a text."""


@dataclass(frozen=True)
class Trial:
    """A model whose activations in 8 bits are to be judged by reading a text."""

    gate: QualityGate
    model: Checkpoint
    token_ids: TokenIds


@dataclass(frozen=True)
class Refinement:
    """The ways to settle it, and what they need of the model; None for what is settled."""

    device: Device
    spec: DecoderSpec
    steps_in: StepsIn
    chooser: FormChooser | None
    trial: Trial | None
    on_progress: Callable[[LoadProgress], None]

    def of(self, programs: Programs) -> Improve | None:
        """Return what puts other programs in the place of these; None where nothing would."""
        if self.chooser is None and self.trial is None:
            return None

        async def improve(buffers: Mapping[str, Buffer]) -> Programs:
            return await self._chosen(await self._tried(programs, buffers), buffers)

        return improve

    async def _tried(self, programs: Programs, buffers: Mapping[str, Buffer]) -> Programs:
        """Return programs in f32 where those that round change the model too much."""
        if self.trial is None or programs[0].activation_dtype != "int8":
            return programs
        info, limits = self.device.info, self.device.limits
        known = {} if self.chooser is None else await self.chooser.known(self.device, "float32")
        tuning = tuning_for(info, limits, known)
        exact = self.steps_in(tuning)
        # Nothing is computed by the products of a chunk, which would have to be compiled.
        steps_alone = replace(exact, prefill=programs[0].prefill)
        kernels = dict(programs[1])
        await compile_missing(self.device, steps_alone, kernels)
        verdict = await judge(
            self.device,
            self.spec,
            buffers,
            (steps_alone, kernels),
            programs,
            await self.trial.token_ids(),
            self.on_progress,
        )
        await self.trial.gate.keep(self.device, self.trial.model, verdict)
        if verdict.passes:
            return programs
        warn_of(verdict)
        return await self._replaced((programs[0], kernels), exact)

    async def _chosen(self, programs: Programs, buffers: Mapping[str, Buffer]) -> Programs:
        """Return programs in the fastest forms."""
        if self.chooser is None:
            return programs
        tuning: Tuning = programs[0].tuning
        chosen = await self.chooser.choose(
            self.device,
            tuning,
            self.steps_in,
            buffers,
            self.spec.prefill_chunk_size,
            self.on_progress,
        )
        if chosen == tuning.measured:
            return programs
        return await self._replaced(programs, self.steps_in(replace(tuning, measured=chosen)))

    async def _replaced(self, programs: Programs, steps: DecoderSteps) -> Programs:
        """Return other steps with their kernels, and without those that only the former had."""
        former = set(programs[0].kernels).difference(steps.kernels)
        kernels = {spec: kernel for spec, kernel in programs[1].items() if spec not in former}
        await compile_missing(self.device, steps, kernels)
        return steps, kernels
