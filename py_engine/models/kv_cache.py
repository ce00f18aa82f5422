"""Keys and values of a sequence on the GPU, in regions of its model's buffers that grow with it.

A cache is (slots, kv_heads, head_dim) in slot-major order, f16 or codes, and attention's kernels
take as many slots as a region has, so growing is a larger region that begins with the same bytes:
one copy, no new pipeline. Room doubles each time, so a token is copied less than once on average.
Small caches have all their room at once (`AttentionShape.grows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from py_engine.errors import ValidationError
from py_engine.gpu.types import Buffer, BufferSlice, Device
from py_engine.kernels.attention_shape import AttentionShape
from py_engine.models.cache_pool import CachePool, LayerCache, LayerPool, Owner

FIRST_TOKENS = 512
"""Tokens that caches which grow have room for at first."""

_UNSYNCHRONIZED_BYTES = 64 << 20
"""Replaced buffers are freed when the GPU is done with them; wait for it once they are so many."""


class KvCache(Owner):
    """A sequence's caches of all layers: those that slide stop growing at their window's slots.

    `first_cache` makes a model's first one, and `another` more in its `pool`, all with room for
    `first_tokens`. Destroy each; the buffers go with the last one.
    """

    def __init__(self, pool: CachePool, first_tokens: int) -> None:
        self.pool = pool
        self._first_tokens = first_tokens
        self._tokens = 0

    def begin(self) -> None:
        """Make the pool's buffers."""
        self.pool.begin(self, [self._first_room(layer) for layer in self.pool.layers])
        self._tokens = self._count_tokens()

    def _first_room(self, layer: LayerPool) -> int:
        return first_room(layer.cache.shape, self._first_tokens)

    async def another(self) -> KvCache:
        """Return the cache of one more sequence.

        Raises OutOfMemoryError, DeviceLostError, and ValidationError when this one was destroyed
        meanwhile.
        """
        made, what = KvCache(self.pool, self._first_tokens), "making room for another sequence"
        try:
            async with self.pool.growing:
                for layer in self.pool.layers:
                    self._require_life()
                    await self.pool.place(layer, made, self._first_room(layer), what)
        except BaseException:
            made.destroy()
            raise
        made._tokens = made._count_tokens()
        return made

    @property
    def buffers(self) -> Mapping[str, BufferSlice]:
        """What the sequence has of each buffer, by name, until the pool's `version` changes."""
        return {
            name: part
            for layer in self.pool.layers
            for name, part in zip(layer.cache.names, layer.slices(self), strict=True)
        }

    def has_room(self, n_tokens: int) -> bool:
        """Return whether a sequence of `n_tokens` fits as it is."""
        return n_tokens <= self._tokens

    def _count_tokens(self) -> int:
        """Return the longest sequence that fits: a cache that has all its slots fits any."""
        rooms = ((self._room(layer), layer.cache.shape) for layer in self.pool.layers)
        growing = [room for room, shape in rooms if room < shape.slots]
        contexts = (layer.cache.shape.context for layer in self.pool.layers)
        return min(growing, default=max(contexts))

    def _room(self, layer: LayerPool) -> int:
        return layer.regions[self].slots

    async def ensure(self, n_tokens: int) -> None:
        """Make room for a sequence of `n_tokens`.

        The copies run after all that was submitted before. One layer grows after the other, so the
        GPU holds little more than the larger caches. When one cannot be had the others' new sizes
        stay: every cache has what it had.
        Raises OutOfMemoryError, DeviceLostError, and ValidationError when it was destroyed
        meanwhile.
        """
        if self.has_room(n_tokens):
            return
        async with self.pool.growing:
            self._require_life()
            room = self._tokens
            while room < n_tokens:
                room *= 2
            replaced = 0
            for layer in self.pool.layers:
                target = min(room, layer.cache.shape.slots)
                if self._room(layer) < target:
                    what = f"making room for {target} tokens in the KV cache"
                    replaced += await self.pool.place(layer, self, target, what)
                    self._tokens = self._count_tokens()
                if replaced > _UNSYNCHRONIZED_BYTES:
                    await self.pool.device.synchronize()
                    self._require_life()
                    replaced = 0

    def _require_life(self) -> None:
        if self.is_freed:
            raise ValidationError("The KV cache was freed while it grew.")

    def copy_from(self, other: KvCache, n_tokens: int, scratch: Buffer) -> None:
        """Copy the slots of another sequence's first `n_tokens`; there is room for them here.

        `scratch` is the pool's.
        """
        for layer in self.pool.layers:
            slots = min(n_tokens, self._room(layer), other._room(layer))
            layer.copy(other, self, slots, scratch)

    def destroy(self) -> None:
        """Give all up; may be called twice."""
        self.pool.release(self)


def first_cache(
    device: Device, caches: Sequence[LayerCache], first_tokens: int = FIRST_TOKENS
) -> KvCache:
    """Return the cache of a model's first sequence, with buffers of its own.

    Call it inside a `check` of the device: an allocation that fails shows there.
    """
    cache = KvCache(CachePool(device, caches), first_tokens)
    cache.begin()
    return cache


def first_room(shape: AttentionShape, first_tokens: int = FIRST_TOKENS) -> int:
    """Return the tokens that a cache of this shape has room for at first."""
    return min(first_tokens, shape.slots) if shape.grows else shape.slots
