"""Keys and values of a sequence in GPU buffers that grow with it.

A cache is (slots, kv_heads, head_dim) in slot-major order, f16 or codes, and attention's kernels
take as many slots as a buffer has, so growing is a larger buffer that begins with the same bytes:
one copy, no new pipeline. Room doubles each time, so a token is copied less than once on average.
Small caches have all their room at once (`AttentionShape.grows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from py_engine.errors import ValidationError
from py_engine.gpu.types import Buffer, Device
from py_engine.kernels.attention_shape import AttentionShape

FIRST_TOKENS = 512
"""Tokens that caches which grow have room for at first."""

_UNSYNCHRONIZED_BYTES = 64 << 20
"""Replaced buffers are freed when the GPU is done with them; wait for it once they are so many."""


@dataclass(frozen=True)
class LayerCache:
    """The names of a buffer of keys and one of values, and their shape.

    They are of all KV heads of a layer, or of some.
    """

    k: str
    v: str
    shape: AttentionShape


class KvCache:
    """The caches of all layers: those that slide stop growing at their window's slots.

    `buffers` has the buffers by name. They are replaced when they grow, after which programs over
    them have to be recorded anew. Make it inside a `check` of the device: a first allocation that
    fails shows there.
    """

    def __init__(
        self, device: Device, caches: Sequence[LayerCache], first_tokens: int = FIRST_TOKENS
    ) -> None:
        self._device = device
        self._room = {cache: first_room(cache.shape, first_tokens) for cache in caches}
        self.buffers: dict[str, Buffer] = {}
        try:
            for cache, room in self._room.items():
                self.buffers |= self._allocate(cache, room)
        except BaseException:
            self.destroy()
            raise
        self._tokens = self._count_tokens()

    def has_room(self, n_tokens: int) -> bool:
        """Return whether a sequence of `n_tokens` fits as it is."""
        return n_tokens <= self._tokens

    def _count_tokens(self) -> int:
        """Return the longest sequence that fits: a cache that has all its slots fits any."""
        growing = [room for cache, room in self._room.items() if room < cache.shape.slots]
        return min(growing, default=max(cache.shape.context for cache in self._room))

    async def ensure(self, n_tokens: int) -> bool:
        """Make room for a sequence of `n_tokens`; True when buffers were replaced.

        The copies run after all that was submitted before. One layer grows after the other, so the
        GPU holds little more than the larger caches. When one cannot be had the others' new sizes
        stay: every cache has what it had, `buffers` are valid, and programs have to be recorded
        anew as well.
        Raises OutOfMemoryError, DeviceLostError, and ValidationError when it was destroyed
        meanwhile.
        """
        if self.has_room(n_tokens):
            return False
        room = self._tokens
        while room < n_tokens:
            room *= 2
        replaced = 0
        for cache in self._room:
            target = min(room, cache.shape.slots)
            if self._room[cache] < target:
                replaced += await self._grow(cache, target)
            if replaced > _UNSYNCHRONIZED_BYTES:
                await self._device.synchronize()
                replaced = 0
        return True

    def copy_from(self, other: KvCache, n_tokens: int) -> None:
        """Copy the slots of another sequence's first `n_tokens`; there is room for them here."""
        for cache, room in self._room.items():
            nbytes = min(n_tokens, room, other._room[cache]) * cache.shape.slot_bytes
            for name in (cache.k, cache.v):
                self._device.copy_buffer(other.buffers[name], self.buffers[name], nbytes)

    async def _grow(self, cache: LayerCache, room: int) -> int:
        """Replace the two buffers of a cache; return the bytes that they had."""
        made: dict[str, Buffer] = {}
        try:
            async with self._device.check(f"making room for {room} tokens in the KV cache"):
                made = self._allocate(cache, room)
            if not self.buffers:
                raise ValidationError("The KV cache was freed while it grew.")
        except BaseException:
            destroy_buffers(made)
            raise
        replaced = {name: self.buffers[name] for name in made}
        for name, old in replaced.items():
            self._device.copy_buffer(old, made[name], old.nbytes)
        self.buffers |= made
        self._room[cache] = room
        self._tokens = self._count_tokens()
        destroy_buffers(replaced)
        return sum(old.nbytes for old in replaced.values())

    def _allocate(self, cache: LayerCache, room: int) -> dict[str, Buffer]:
        nbytes = room * cache.shape.slot_bytes
        made: dict[str, Buffer] = {}
        try:
            for name in (cache.k, cache.v):
                made[name] = self._device.create_buffer(nbytes, name)
        except BaseException:
            destroy_buffers(made)
            raise
        return made

    def destroy(self) -> None:
        """Free all buffers."""
        destroy_buffers(self.buffers)
        self.buffers.clear()


def first_room(shape: AttentionShape, first_tokens: int = FIRST_TOKENS) -> int:
    """Return the tokens that a cache of this shape has room for at first."""
    return min(first_tokens, shape.slots) if shape.grows else shape.slots


def destroy_buffers(buffers: Mapping[str, Buffer]) -> None:
    """Free buffers."""
    for buffer in buffers.values():
        buffer.destroy()
