"""The draw half of a decode step: its kernels, buffers and programs.

A forward program leaves f32 logits in "logits". The draw takes them through mask, bias and
penalties, each dispatched only where a request has it, and leaves the token in "state", where the
next step reads it; log-probabilities come back in the same read.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Mapping, Sequence
from itertools import chain
from typing import Any

from py_engine.gpu.types import Buffer, BufferSlice, Device, Dispatch, Kernel, KernelSpec, Program
from py_engine.kernels.sampling import (
    GREEDY_TEMPERATURE,
    adjust,
    draw,
    logprobs,
    mask,
    pack_sampling,
)
from py_engine.kernels.tuning import Tuning
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.base import MAX_TOP_LOGPROBS, Draw, SamplingParams
from py_engine.models.ops import Step

_TOKEN_OFFSET = 4 * STATE_WORDS["STATE_TOKEN"]

Roles = Mapping[str, tuple[Step, ...]]
"""The dispatches of each role in a draw, over buffers with the names of the kernels' bindings."""


def draw_roles(vocab_size: int, tuning: Tuning, batch: int = 1) -> Roles:
    """Return the dispatches of a draw alone, for up to `batch` rows of logits.

    "sample" is for every temperature, "greedy" for those that take the likeliest token.
    """
    kernels = draw(vocab_size, tuning, batch)
    return {
        "sample": tuple(map(_step, kernels)),
        "greedy": tuple(_step(kernel) for kernel in kernels if kernel.name != "narrow"),
    }


def sampler_roles(vocab_size: int, tuning: Tuning) -> Roles:
    """Return what a sampler may dispatch.

    "mask", "adjust", then "sample" or, where the temperature asks for it, "greedy", and "logprobs".
    """
    kernels = {
        "mask": mask("mask", vocab_size),
        "adjust": adjust("adjust", vocab_size),
        "logprobs": logprobs("logprobs", vocab_size, MAX_TOP_LOGPROBS, tuning),
    }
    return {
        **draw_roles(vocab_size, tuning),
        **{role: (_step(kernel),) for role, kernel in kernels.items()},
    }


def _step(kernel: KernelSpec) -> Step:
    return Step(kernel, tuple(binding.name for binding in kernel.bindings))


def sampler_kernels(vocab_size: int, tuning: Tuning) -> list[KernelSpec]:
    """Return all kernels of a sampler."""
    roles = sampler_roles(vocab_size, tuning)
    return list(dict.fromkeys(step.kernel for steps in roles.values() for step in steps))


def draw_role(sampling: SamplingParams) -> str:
    """Return the role of what draws a token."""
    return "greedy" if sampling.temperature <= GREEDY_TEMPERATURE else "sample"


def is_draw_alone(roles: Sequence[str]) -> bool:
    """Tell whether a draw with these roles has no kernels but those that draw."""
    return len(roles) == 1


def draw_steps(vocab_size: int, tuning: Tuning, roles: Sequence[str]) -> tuple[Step, ...]:
    """Return the dispatches of a draw with these roles."""
    steps = sampler_roles(vocab_size, tuning)
    return tuple(chain.from_iterable(steps[role] for role in roles))


def sampler_sizes(vocab_size: int) -> dict[str, int]:
    """Return the bytes of what a sampler has for one sequence, by name.

    "state", "sampling" and the scratch of a draw are others'.
    """
    return {
        **dict.fromkeys(("logits", "counts", "bias"), 4 * vocab_size),
        "mask": 4 * -(-vocab_size // 32),
        "drawn": 4 * _drawn_words(MAX_TOP_LOGPROBS),
    }


def _drawn_words(n_top: int) -> int:
    return 2 + 2 * n_top


class Sampler:
    """Draws tokens from the logits that forward programs leave; owns none of its buffers.

    `state` and `sampling` are the sequence's, `roles` the kernels of a draw.
    """

    def __init__(
        self,
        device: Device,
        vocab_size: int,
        roles: Roles,
        kernels: Mapping[KernelSpec, Kernel],
        buffers: Mapping[str, Buffer],
        state: BufferSlice,
        sampling: BufferSlice,
    ) -> None:
        self._device = device
        self._vocab_size = vocab_size
        self._buffers = buffers
        self._state = state
        self._sampling = sampling
        bound: dict[str, Buffer | BufferSlice] = {**buffers, "state": state, "sampling": sampling}
        self._parts = {
            role: device.program(
                [
                    Dispatch(kernels[step.kernel], tuple(bound[name] for name in step.buffers))
                    for step in steps
                ],
                role,
            )
            for role, steps in roles.items()
        }
        self._chains: dict[tuple[Program, ...], Program] = {}
        self._bias_is_set = False
        self.start(SamplingParams())

    def forget_programs(self) -> None:
        """Drop the programs that begin with forward programs, which are no longer used."""
        self._chains.clear()

    def start(self, sampling: SamplingParams, drawn: Sequence[int] = ()) -> None:
        """Set how tokens are drawn from now on, and which were drawn so far."""
        n_top = sampling.top_logprobs
        self._n_top = None if n_top is None else min(n_top, self._vocab_size)
        own = self._sampling
        self._device.write_buffer(own.buffer, own.offset, self._packed(sampling))
        self._set_counts(drawn)
        self._set_bias(sampling.logit_bias)
        roles = [draw_role(sampling)]
        if sampling.logit_bias or _has_penalties(sampling):
            roles.insert(0, "adjust")
        if n_top is not None:
            roles.append("logprobs")
        self.roles = tuple(roles)

    @property
    def is_independent(self) -> bool:
        """Whether a draw depends on nothing but its logits and random number, and gives a token."""
        return is_draw_alone(self.roles)

    @property
    def gives_tokens_only(self) -> bool:
        """Whether a draw has no log-probabilities."""
        return self._n_top is None

    def _packed(self, sampling: SamplingParams) -> bytes:
        return pack_sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            top_k=min(sampling.top_k, self._vocab_size),
            seed=sampling.seed,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            top_logprobs=self._n_top or 0,
        )

    def _set_counts(self, drawn: Sequence[int]) -> None:
        if not drawn:
            self._device.clear_buffer(self._buffers["counts"])
            return
        counts = array("I", bytes(4 * self._vocab_size))
        for token_id in drawn:
            counts[token_id] += 1
        self._device.write_buffer(self._buffers["counts"], 0, counts)

    def _set_bias(self, bias: Mapping[int, float]) -> None:
        """Put the bias into its dense buffer, which stays zero while no request has one."""
        if bias:
            dense = array("f", bytes(4 * self._vocab_size))
            for token_id, value in bias.items():
                dense[token_id] = value
            self._device.write_buffer(self._buffers["bias"], 0, dense)
        elif self._bias_is_set:
            self._device.clear_buffer(self._buffers["bias"])
        self._bias_is_set = bool(bias)

    def draw(self, forward: Program | None = None, mask: Any = None) -> Awaitable[Draw]:
        """Enqueue `forward`, if any, and a draw from its logits, in one submit."""
        steps = tuple(self._parts[role] for role in self.roles)
        if mask is not None:
            self._device.write_buffer(self._buffers["mask"], 0, mask)
            steps = (self._parts["mask"], *steps)
        program = self._chained(steps if forward is None else (forward, *steps))
        if self._n_top is None:
            offset = self._state.offset + _TOKEN_OFFSET
            return _token(program.submit_and_read(self._state.buffer, offset))
        size = 4 * _drawn_words(self._n_top)
        return _token_with_logprobs(program.submit_and_read_bytes(self._buffers["drawn"], 0, size))

    def _chained(self, parts: tuple[Program, ...]) -> Program:
        """Return the program of these parts, made when it is first asked for."""
        program = self._chains.get(parts)
        if program is None:
            program = self._chains[parts] = self._device.chain(parts, "step")
        return program


def _has_penalties(sampling: SamplingParams) -> bool:
    return bool(
        sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.repetition_penalty != 1.0
    )


async def _token(reading: Awaitable[int]) -> Draw:
    return Draw(await reading)


async def _token_with_logprobs(reading: Awaitable[bytes]) -> Draw:
    drawn = await reading
    ids, logprobs = array("I", drawn)[::2], array("f", drawn)[1::2]
    likeliest = tuple(zip(ids[1:], logprobs[1:], strict=True))
    return Draw(ids[0], logprobs[0], likeliest)
