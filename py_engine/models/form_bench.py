"""Runs forms of a product over a model's buffers: what they give, and how long they take."""

from __future__ import annotations

import logging
import random
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Self

from py_engine.errors import DeviceLostError, MLCError
from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Buffer, Clock, Device, Dispatch, Program
from py_engine.models.cache_pool import LayerCache
from py_engine.models.kv_cache import first_room
from py_engine.models.ops import Step

logger = logging.getLogger(__name__)

_COMPARED = 8192
"""Outputs that are compared with the plain form's, the first ones."""

_NOISE = 4093
"""Numbers that inputs repeat: a prime, so that rows differ."""


class FormBench:
    """Measures on `device` by `clock`; the model's `buffers` are overwritten where they are inputs.

    Chunks have `n_tokens`, the last ones that the first buffers of `caches` have room for. These
    are made when they are first needed; a `with` block frees them.
    """

    def __init__(
        self,
        device: Device,
        clock: Clock,
        buffers: Mapping[str, Buffer],
        caches: Sequence[LayerCache],
        n_tokens: int,
    ) -> None:
        self._device = device
        self._clock = clock
        self._buffers = buffers
        self._shapes = {name: cache.shape for cache in caches for name in cache.names}
        self._caches: dict[str, Buffer] = {}
        rooms = (first_room(cache.shape) - n_tokens for cache in caches)
        self._position = max(0, min(rooms, default=0))
        self._n_tokens = n_tokens
        self._right: dict[str, array[float]] = {}
        chance = random.Random(1)
        self._noise = array("f", [chance.uniform(-1, 1) for _ in range(_NOISE)])
        # Read as halfs, as codes or as the scale of codes, these are numbers of a usual size.
        words = ((0x3F00 | chance.randrange(256)) << 16 | chance.randrange(0x3000, 0x3C00)
                 for _ in range(_NOISE))  # fmt: skip
        self._cache_noise = array("I", words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        destroy_buffers(self._caches.values())

    async def seconds(
        self, steps: Sequence[Step], plain: Sequence[Step], tolerance: float
    ) -> float | None:
        """Return the seconds of one of the steps; None if what they give is not what `plain` gives.

        Differences may be `tolerance` times the largest of it.

        Raises DeviceLostError.
        """
        try:
            async with self._device.check("measuring kernels"):
                if not await self._is_right(steps, plain, tolerance):
                    logger.warning("%s gives wrong results here", steps[0].kernel.label)
                    return None
                program = await self._program(steps)
                return await self._clock.seconds(program) / len(steps)
        except DeviceLostError:
            raise
        except MLCError as error:
            logger.warning("a form of %s failed: %s", steps[0].kernel.label, error)
            return None

    async def _is_right(
        self, steps: Sequence[Step], plain: Sequence[Step], tolerance: float
    ) -> bool:
        """Compare what each kernel gives the first time that it occurs."""
        pairs = reversed(list(zip(steps, plain, strict=True)))
        for step, as_it_should in {pair[0].kernel.source: pair for pair in pairs}.values():
            source = as_it_should.kernel.source
            if source not in self._right:
                self._right[source] = await self._outputs(as_it_should)
            right, found = self._right[source], await self._outputs(step)
            most = tolerance * max(map(abs, right))
            # A NaN is not within any distance.
            if not all(abs(a - b) <= most for a, b in zip(found, right, strict=True)):
                return False
        return True

    async def _outputs(self, step: Step) -> array[float]:
        """Return the first outputs of a step whose inputs are noise.

        Some forms fold in what a branch adds, and the plain one does not: it adds zeros.
        """
        names = dict(zip((b.name for b in step.kernel.bindings), step.buffers, strict=True))
        x = self._buffers[names["x"] if "x" in names else names["qkv"]]
        output = self._buffers[names["output"]]
        self._fill(x, self._noise)
        self._device.clear_buffer(output)
        if "branch" in names:
            self._device.clear_buffer(self._buffers[names["branch"]])
        (await self._program([step])).submit()
        outputs = array("f")
        outputs.frombytes(
            await self._device.read_buffer(output, 0, min(output.nbytes, 4 * _COMPARED))
        )
        return outputs

    async def _program(self, steps: Sequence[Step]) -> Program:
        specs = list({id(step.kernel): step.kernel for step in steps}.values())
        compiled = await self._device.compile(specs)
        kernels = {id(spec): kernel for spec, kernel in zip(specs, compiled, strict=True)}
        state = array("I", [self._position, self._n_tokens, 0, 0])
        self._device.write_buffer(self._buffers["state"], 0, state)
        program = self._device.program(
            [
                Dispatch(kernels[id(step.kernel)], tuple(map(self._buffer, step.buffers)))
                for step in steps
            ],
            "measuring",
        )
        program.set_n_tokens(self._n_tokens)
        return program

    def _buffer(self, name: str) -> Buffer:
        """Return the model's buffer, or one of a cache with noise for keys or values."""
        if name not in self._shapes:
            return self._buffers[name]
        if name not in self._caches:
            shape = self._shapes[name]
            nbytes = first_room(shape) * shape.slot_bytes
            self._caches[name] = self._device.create_buffer(nbytes, name)
            self._fill(self._caches[name], self._cache_noise)
        return self._caches[name]

    def _fill(self, buffer: Buffer, noise: array[Any]) -> None:
        repeated = noise * -(-buffer.nbytes // (4 * len(noise)))
        self._device.write_buffer(buffer, 0, repeated, 0, buffer.nbytes)
