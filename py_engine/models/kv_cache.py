"""Keys and values of a sequence in GPU buffers that grow with it.

A cache is f16 (slots, kv_heads, head_dim) in slot-major order, and attention's kernels take as many
slots as a buffer has, so growing is a larger buffer that begins with the same bytes: one copy, no
new pipeline. Room doubles each time, so a token is copied less than once on average.
"""

from __future__ import annotations

from collections.abc import Mapping

from py_engine.gpu.types import Buffer, Device
from py_engine.kernels.attention_shape import AttentionShape

FIRST_TOKENS = 512
"""Tokens that caches have room for at first."""

_UNSYNCHRONIZED_BYTES = 64 << 20
"""Replaced buffers are freed when the GPU is done with them; wait for it once they are so many."""


class KvCache:
    """The caches of all layers, by name: layers that slide stop growing at their window's slots.

    `buffers` has "k_cache NAME" and "v_cache NAME" for every name of `caches`. They are replaced
    when they grow, after which programs over them have to be recorded anew. Make it inside a
    `check` of the device: a first allocation that fails shows there.
    """

    def __init__(
        self,
        device: Device,
        caches: Mapping[str, AttentionShape],
        first_tokens: int = FIRST_TOKENS,
    ) -> None:
        self._device = device
        self._caches = caches
        self._room = {name: min(first_tokens, shape.slots) for name, shape in caches.items()}
        self.buffers: dict[str, Buffer] = {}
        try:
            for name, room in self._room.items():
                self.buffers |= self._allocate(name, room)
        except BaseException:
            self.destroy()
            raise

    def has_room(self, n_tokens: int) -> bool:
        """Return whether a sequence of `n_tokens` fits as it is."""
        return all(
            room >= min(n_tokens, self._caches[name].slots) for name, room in self._room.items()
        )

    async def ensure(self, n_tokens: int) -> bool:
        """Make room for a sequence of `n_tokens`; True when buffers were replaced.

        The copies run after all that was submitted before. One layer grows after the other, so the
        GPU holds little more than the larger caches. When one cannot be had the others' new sizes
        stay: every cache has what it had, `buffers` are valid, and programs have to be recorded
        anew as well.
        Raises OutOfMemoryError, LimitSupportError, DeviceLostError.
        """
        if self.has_room(n_tokens):
            return False
        room = max(self._room.values())
        while room < n_tokens:
            room *= 2
        replaced = 0
        for name, shape in self._caches.items():
            target = min(room, shape.slots)
            if self._room[name] < target:
                replaced += await self._grow(name, target)
            if replaced > _UNSYNCHRONIZED_BYTES:
                await self._device.synchronize()
                replaced = 0
        return True

    async def _grow(self, name: str, room: int) -> int:
        """Replace the two buffers of a cache; return the bytes that they had."""
        made: dict[str, Buffer] = {}
        try:
            async with self._device.check(f"making room for {room} tokens in the KV cache"):
                made = self._allocate(name, room)
        except BaseException:
            _destroy(made)
            raise
        replaced = {label: self.buffers[label] for label in made}
        for label, old in replaced.items():
            self._device.copy_buffer(old, made[label], old.nbytes)
        self.buffers |= made
        self._room[name] = room
        _destroy(replaced)
        return sum(old.nbytes for old in replaced.values())

    def _allocate(self, name: str, room: int) -> dict[str, Buffer]:
        nbytes = room * self._caches[name].slot_bytes
        made: dict[str, Buffer] = {}
        try:
            for label in (f"k_cache {name}", f"v_cache {name}"):
                made[label] = self._device.create_buffer(nbytes, label)
        except BaseException:
            _destroy(made)
            raise
        return made

    def destroy(self) -> None:
        """Free all buffers."""
        _destroy(self.buffers)
        self.buffers.clear()


def _destroy(buffers: Mapping[str, Buffer]) -> None:
    for buffer in buffers.values():
        buffer.destroy()
