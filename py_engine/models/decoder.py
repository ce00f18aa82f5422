"""One decoder-only transformer over a `DecoderSpec`: its recorded programs and its sequence.

`decoder_steps.py` decides what the programs are made of. The draw of the next token
(`models/sampler.py`) stays on the GPU as the next step's input.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from py_engine.errors import ContextWindowSizeExceededError, OutOfMemoryError
from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import (
    Buffer,
    BufferSlice,
    Device,
    Dispatch,
    Program,
)
from py_engine.kernels.sampling import SAMPLING_STRIDE
from py_engine.kernels.vision import STATE_IMAGES
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.base import Draw, SamplingParams
from py_engine.models.batch import STATE_STRIDE, is_exact
from py_engine.models.batch_programs import BatchPrograms
from py_engine.models.batcher import Batcher, NextStep
from py_engine.models.compiling import KernelGate, Kernels
from py_engine.models.decoder_memory import RopeTables, most_sequences, sequence_sizes
from py_engine.models.decoder_steps import DecoderSteps
from py_engine.models.delta_states import DeltaStates
from py_engine.models.drafts import Drafts
from py_engine.models.kv_cache import KvCache
from py_engine.models.ops import Step
from py_engine.models.read_backs import FEWEST_STEPS
from py_engine.models.sampler import Sampler, sampler_roles
from py_engine.models.spec import DecoderSpec
from py_engine.models.vision_plan import Vision


class Decoder:
    """A loaded model with one sequence; the `TextModel` of `models/base.py`.

    Owns `cache` and `buffers`: weights and activations, by the names that its steps have for them.
    They are on `device`. A fork (`base` is what it comes from) owns what a sequence has of its own.
    """

    def __init__(
        self,
        device: Device,
        spec: DecoderSpec,
        steps: DecoderSteps,
        kernels: Kernels,
        buffers: dict[str, Buffer],
        cache: KvCache,
        vision: Vision | None = None,
        base: Decoder | None = None,
    ) -> None:
        self.spec = spec
        self.vision = None if vision is None else vision.tower(device, spec, kernels, buffers)
        self.vocab_size = spec.active_vocab_size
        self.context_window_size = spec.context_window_size
        self.prefill_chunk_size = spec.prefill_chunk_size
        self.activation_dtype = steps.activation_dtype
        self.steps_in_flight = FEWEST_STEPS
        self.free_memory: Callable[[], bool] = lambda: False
        self.device = device
        self._position = 0  # tokens of the sequence once everything enqueued has run
        self._n_written = 0  # the most there were since its first one
        self._n_draws = 0
        self._chunk_is_queued = False
        self._steps = steps
        self._base = base
        self._owned = buffers
        self._cache = cache
        self._windows = {layer.window for layer in spec.layers if layer.window is not None}
        if base is None:
            self._kernels = dict(kernels)
            self._buffers = buffers
            self._ropes = RopeTables(device, spec, buffers)
            programs = BatchPrograms(device, spec, steps, self._kernels, buffers, cache.pool)
            self._batcher = Batcher(programs, buffers["state"], most_sequences(spec))
            self._gate = KernelGate(device, kernels, steps.kernels_of_decode)
        else:
            self._kernels = base._kernels
            self._buffers = {**base._buffers, **buffers}
            self._ropes = base._ropes
            self._batcher = base._batcher
            self._gate = base._gate
        self._slot = slot = self._batcher.take_slot()
        states = self._buffers["state"]
        # Images put more into the state of a model's only sequence.
        size = 4 * len(STATE_WORDS) if most_sequences(spec) > 1 else states.nbytes
        self._state = BufferSlice(states, 4 * STATE_STRIDE * slot, size)
        sampling = BufferSlice(self._buffers["sampling"], SAMPLING_STRIDE * slot, SAMPLING_STRIDE)
        self._own: Mapping[str, Buffer | BufferSlice] = {
            **{name: self._buffers[name] for name in sequence_sizes(spec)},
            "state": self._state,
            "sampling": sampling,
        }
        self._is_exact = is_exact(steps.next_logits.of_any)
        self._may_join = True
        self._states = DeltaStates(device, spec, self._buffers)
        self._version = cache.pool.version
        self._programs: dict[int, Program] = {}  # by the ids of their steps
        self._drafts = Drafts(device, spec, steps, self._kernels, self.program)
        roles = sampler_roles(self.vocab_size, steps.tuning)
        self._sampler = Sampler(
            device, self.vocab_size, roles, kernels, self._buffers, self._state, sampling
        )
        # At once, so that the check around this tells of a program that is wrong.
        for _, each in steps.programs:
            self._recorded(each)

    def program(
        self,
        steps: Sequence[Step],
        label: str,
        others: Mapping[str, Buffer | BufferSlice] | None = None,
    ) -> Program:
        """Record a program of kernels that the decoder has, over its buffers as they are now."""
        buffers = {**self._buffers, **self._own, **self._cache.buffers, **(others or {})}
        dispatches = [
            Dispatch(
                self._kernels[step.kernel],
                tuple(buffers[name] for name in step.buffers),
                step.n_tokens,
            )
            for step in steps
        ]
        return self.device.program(dispatches, label)

    def _recorded(self, steps: tuple[Step, ...]) -> Program:
        """Return the program of some of the decoder's steps, over the caches as they are now."""
        self._forget_moved()
        if id(steps) not in self._programs:
            label = next(label for label, each in self._steps.programs if each is steps)
            self._programs[id(steps)] = self.program(steps, label)
        return self._programs[id(steps)]

    def _next(self, n_tokens: int) -> Program:
        """Return decode's program, for the token with which the sequence has so many."""
        return self._recorded(self._steps.next_logits.of(n_tokens))

    def _forget_moved(self) -> None:
        """Drop all programs where a sequence's growth has moved the caches."""
        if self._version != self._cache.pool.version:
            self._version = self._cache.pool.version
            self._programs.clear()
            self._drafts.forget_programs()
            self._sampler.forget_programs()

    def _write_state(self, words: array[int], first: int = 0) -> None:
        self.device.write_buffer(self._state.buffer, self._state.offset + 4 * first, words)

    @property
    def has_all_kernels(self) -> bool:
        """Whether `reserve` waits for no kernels that are still compiling."""
        return self._gate.is_open

    @property
    def steps(self) -> DecoderSteps:
        """The programs that it runs."""
        return self._steps

    def reusable_tokens(self, n_tokens: int) -> int:
        """Return how many of the sequence's first `n_tokens` tokens a `start` can keep."""
        kept = min(n_tokens, self._position)
        kept = self._states.reusable_tokens(kept, self._position)
        written = self._n_written
        is_held = all(window.reusable_tokens(kept, written) == kept for window in self._windows)
        return kept if is_held and self._ropes.can_keep(kept) else 0

    def start(
        self,
        sampling: SamplingParams,
        kept_tokens: int = 0,
        prompt_tokens: int = 0,
        drawn: Sequence[int] = (),
        *,
        is_reproducible: bool = False,
    ) -> None:
        """Forget the sequence but for its first `kept_tokens`, and set how tokens are drawn.

        `kept_tokens` is at most what `reusable_tokens` allows. A prompt of `prompt_tokens` that is
        too long for a model's short RoPE is then computed only once. `drawn` and `is_reproducible`
        as in `TextModel`.
        """
        self._batcher.flush(self._slot)
        assert kept_tokens == self.reusable_tokens(kept_tokens)
        self._states.start(kept_tokens, self._position, prompt_tokens)
        self._position = kept_tokens
        self._n_written = self._n_written if kept_tokens else 0
        self._chunk_is_queued = False
        if not kept_tokens:
            self._ropes.begin(prompt_tokens)
        state = array("I", [kept_tokens, 0, 0, len(drawn)])
        self._write_state(state)
        self._sampler.start(sampling, drawn)
        self._n_draws = len(drawn)
        self._may_join = self._sampler.gives_tokens_only and (self._is_exact or not is_reproducible)

    async def prefill(self, token_ids: Sequence[int]) -> None:
        """Append one chunk of 1 to `prefill_chunk_size` tokens to the sequence.

        Waits for the chunk before it, so that the GPU never has more than one queued and a caller
        can stop between two. Raises ContextWindowSizeExceededError, OutOfMemoryError,
        ShaderCompilationError, DeviceLostError.
        """
        await self._gate.chunk()
        n_tokens = len(token_ids)
        self._require_room(n_tokens)
        await self._make_room(self._position + n_tokens)
        for _ in self._lengthened_to(self._position + n_tokens):
            await self.device.synchronize()
        if self._chunk_is_queued:
            await self.device.synchronize()
        ids, places = await self._placed(token_ids)
        before_copy = self._states.tokens_before_copy(self._position)
        if before_copy is not None and before_copy < n_tokens:
            self._append(ids[:before_copy], places[:before_copy])
            self._states.save(self._position)
            ids, places = ids[before_copy:], places[before_copy:]
        self._append(ids, places)
        self._chunk_is_queued = True

    def _append(self, token_ids: Sequence[int], places: Sequence[int]) -> None:
        if not token_ids:
            return
        ids = array("I", token_ids)
        if places:
            self._write_state(array("I", places), STATE_IMAGES)
        self.device.write_buffer(self._buffers["prefill tokens"], 0, ids)
        if self._ropes.limit:
            self.device.write_buffer(self._buffers["history"], 4 * self._position, ids)
        self._submit_chunk(self._position, len(ids))
        self._advance(len(ids))

    async def _placed(self, token_ids: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Bring a chunk's images to where prefill takes them from; see `VisionTower.place`."""
        return (token_ids, ()) if self.vision is None else await self.vision.place(token_ids)

    async def reserve(self, n_tokens: int) -> None:
        """Let the KV cache grow for `n_tokens` more, as far as the context allows.

        Waits for kernels that are still compiling. Raises OutOfMemoryError, ShaderCompilationError,
        DeviceLostError; what the sequence has is still there then, but after the last one.
        """
        await self._gate.decode()
        await self._make_room(min(self._position + n_tokens, self.context_window_size))

    async def _make_room(self, wanted: int) -> None:
        if self._cache.has_room(wanted):
            return
        try:
            await self._cache.ensure(wanted)
        except OutOfMemoryError:
            if not self.free_memory():
                raise
            await self._cache.pool.compact()
            await self._cache.ensure(wanted)

    def _submit_chunk(self, position: int, n_tokens: int, *, again: bool = False) -> None:
        self._write_state(array("I", [position, n_tokens]))
        if again:
            self._recorded(self._steps.recall).submit()
        prefill = self._recorded(self._steps.prefill)
        prefill.set_n_tokens(n_tokens)
        prefill.submit()

    def _lengthened_to(self, n_tokens: int) -> Iterator[None]:
        """Enqueue what must be computed again before the sequence has `n_tokens`, chunk by chunk.

        Past a limit LongRoPE rotates the whole sequence by other frequencies, which changes every
        key and value so far. The drawn token stays where it is.
        """
        if not self._ropes.change_at(n_tokens):
            return
        self._ropes.use_long()
        for first in range(0, self._position, self.prefill_chunk_size):
            n_chunk = min(self.prefill_chunk_size, self._position - first)
            self._submit_chunk(first, n_chunk, again=True)
            yield
        self._write_state(array("I", [self._position, 1]))

    def sample(self) -> Awaitable[Draw]:
        """Draw the first token after the last prefill chunk."""
        return self._draw(self._recorded(self._steps.first_logits))

    def decode(self) -> Awaitable[Draw]:
        """Enqueue one step, which appends the last drawn token and draws the next one.

        It may become part of a step of several sequences. There is room: see `reserve`.
        Raises ContextWindowSizeExceededError at the context's end.
        """
        self._append_drawn_tokens(1)
        self._n_draws += 1
        n_tokens, sampler = self._position, self._sampler
        step = NextStep(
            self._own,
            self._cache,
            self._slot,
            sampler.roles,
            n_tokens,
            self._may_join,
            # The caches may have moved when it is enqueued.
            lambda: sampler.draw(self._next(n_tokens)),
        )
        return self._batcher.step(step)

    async def replay(self, token_ids: Sequence[int]) -> None:
        """Append drawn tokens by decode's own program; leaves the logits after the last one.

        Waits until the GPU is done. Raises ContextWindowSizeExceededError, and the errors of
        `reserve`.
        """
        for token_id in token_ids:
            await self.reserve(1)
            position = self._position
            self._append_drawn_tokens(1)
            self._write_state(array("I", [position, 1, token_id]))
            self._next(self._position).submit()
        await self.device.synchronize()

    def first_logits(self) -> None:
        """Compute the logits after the last prefill chunk; returns at once."""
        self._recorded(self._steps.first_logits).submit()

    def next_logits(self) -> None:
        """Append the last drawn token and compute the logits after it; returns at once.

        There is room: see `reserve`. Raises ContextWindowSizeExceededError at the context's end.
        """
        self._append_drawn_tokens(1)
        self._next(self._position).submit()

    def draw(self, mask: Any = None) -> Awaitable[Draw]:
        """Draw from the logits at hand; `mask` as in `TextModel.draw`."""
        return self._draw(mask=mask)

    def _draw(self, forward: Program | None = None, mask: Any = None) -> Awaitable[Draw]:
        self._n_draws += 1
        return self._sampler.draw(forward, mask)

    async def prepare_drafts(self, n_tokens: int) -> int:
        """Get ready to `verify` drafts of up to `n_tokens`; return how many they can have.

        0 where the model cannot verify any, or draws as asked for by `start` depend on each other.
        Raises OutOfMemoryError, ShaderCompilationError.
        """
        if not self._sampler.is_independent:
            return 0
        return await self._drafts.prepare(n_tokens)

    async def verify(self, token_id: int, draft: Sequence[int]) -> list[int]:
        """Append the token drawn last and the beginning of `draft` that the draws agree with.

        Returns these draws, and the first that differs or comes after the draft. `draft` is at most
        as long as `prepare_drafts` allowed. Raises ContextWindowSizeExceededError, DeviceLostError
        and the errors of `reserve`.
        """
        position, tokens = self._position, (token_id, *draft)
        # Tables that change for a token which is then refused would change too early.
        tokens = tokens[: self._ropes.most_appended(position, len(tokens))]
        draft = tokens[1:]
        await self.reserve(len(tokens))
        self._append_drawn_tokens(len(tokens))
        self._forget_moved()
        draws = await self._drafts.run(tokens, position, self._n_draws, self._sampler.roles[0])
        wrong = (i for i, token in enumerate(draft) if draws[i] != token)
        draws = draws[: next(wrong, len(draft)) + 1]
        self._position = position + len(draws)
        self._n_draws += len(draws)
        state = array("I", [self._position, 1, draws[-1], self._n_draws])
        self._write_state(state)
        return draws

    def _append_drawn_tokens(self, n_tokens: int) -> None:
        self._require_room(n_tokens)
        assert self._cache.has_room(self._position + n_tokens), "reserve comes before each step"
        for _ in self._lengthened_to(self._position + n_tokens):
            pass
        self._advance(n_tokens)

    def _advance(self, n_tokens: int) -> None:
        self._position += n_tokens
        self._n_written = max(self._n_written, self._position)

    def _require_room(self, n_tokens: int) -> None:
        if self._position + n_tokens > self.context_window_size:
            raise ContextWindowSizeExceededError(
                f"{self._position} tokens are in the KV cache and {n_tokens} more do not fit into"
                f" context_window_size {self.context_window_size}. Shorten the messages, or load"
                " the model with a larger context_window_size."
            )

    async def read_logits(self) -> array[float]:
        """Return the f32 logits at hand, (vocab_size,): unadjusted before their draw."""
        logits = array("f")
        logits.frombytes(
            await self.device.read_buffer(self._buffers["logits"], 0, 4 * self.vocab_size)
        )
        return logits

    def write_logits(self, logits: Any) -> None:
        """Replace the logits at hand, f32 (vocab_size,), before their draw."""
        self.device.write_buffer(self._buffers["logits"], 0, logits, 0, 4 * self.vocab_size)

    async def fork(self) -> Decoder | None:
        """Return another sequence of the same model; see `TextModel.fork`.

        Raises OutOfMemoryError and DeviceLostError; nothing is left behind then.
        """
        if not self._batcher.has_slot:
            return None
        own: dict[str, Buffer] = {}
        cache: KvCache | None = None
        fork: Decoder | None = None
        try:
            cache = await self._cache.another()
            if not self._batcher.has_slot:
                cache.destroy()
                return None
            async with self.device.check("making room for another sequence"):
                for name, nbytes in sequence_sizes(self.spec).items():
                    own[name] = self.device.create_buffer(nbytes, name)
                fork = Decoder(
                    self.device, self.spec, self._steps, self._kernels, own, cache, None, self
                )
        except BaseException:
            if fork is not None:
                fork.destroy()
            elif cache is not None:
                cache.destroy()
            destroy_buffers(own.values())
            raise
        fork.steps_in_flight = self.steps_in_flight
        return fork

    async def adopt(self, other: Decoder, n_tokens: int) -> int:
        """Begin with the first tokens of another sequence; see `TextModel.adopt`.

        Raises DeviceLostError.
        """
        if other.reusable_tokens(n_tokens) != n_tokens or not self._states.are_empty:
            return 0
        self._batcher.flush(self._slot)
        try:
            await self._make_room(self._adopted(other, n_tokens))
            scratch = await self._cache.pool.scratch()
        except OutOfMemoryError:
            return 0
        try:
            # The other one may have been freed to make room, or have gone on.
            is_there = not other._cache.is_freed and other.reusable_tokens(n_tokens) == n_tokens
            n_written = self._adopted(other, n_tokens)
            if not is_there or not self._cache.has_room(n_written):
                return 0
            self._cache.copy_from(other._cache, n_written, scratch)
        finally:
            scratch.destroy()
        self._position, self._n_written = n_tokens, n_written
        return n_tokens

    def _adopted(self, other: Decoder, n_tokens: int) -> int:
        """Return the tokens whose slots must be copied: a window's hold later ones, too."""
        n_written = other._n_written if self._windows else n_tokens
        return min(n_written, self.context_window_size)

    def destroy(self) -> None:
        """Free everything the model holds on the GPU; of a fork, what it holds itself."""
        if self._base is None:
            self._batcher.destroy()
        else:
            self._batcher.leave(self._slot)
        self._drafts.destroy()
        self._cache.destroy()
        destroy_buffers(self._owned.values())
        self._owned.clear()
