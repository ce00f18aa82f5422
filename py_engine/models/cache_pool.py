"""The buffers that hold the KV caches of all sequences of a model, a region of slots for each.

So one kernel reaches them all, and attention of several sequences is one dispatch. A region is a
slice that can be bound: kernels of one sequence know of no other. Where there is no room for a
larger one, a new buffer takes the place of the old one, with all regions one behind the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from py_engine.errors import OutOfMemoryError, ValidationError
from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import SLICE_ALIGNMENT, Buffer, BufferSlice, Device
from py_engine.kernels.attention_shape import AttentionShape

_SCRATCH_BYTES = 8 << 20
"""Copies within a buffer go through another one, of at most so many bytes."""


@dataclass(frozen=True)
class LayerCache:
    """The names of a buffer of keys and one of values, and their shape.

    They are of all KV heads of a layer, or of some.
    """

    k: str
    v: str
    shape: AttentionShape

    @property
    def names(self) -> tuple[str, str]:
        """Both names."""
        return self.k, self.v

    @property
    def rows(self) -> str:
        """The name of the buffer that tells attention of a batch where its rows' regions are."""
        return f"rows of {self.k}"


@dataclass(frozen=True)
class Region:
    """Slots of a sequence: so many from `first` on."""

    first: int
    slots: int

    @property
    def end(self) -> int:
        return self.first + self.slots


class Owner:
    """Whoever has regions in a pool; `is_freed` once it has given them up."""

    is_freed = False


class LayerPool:
    """One pair of buffers, of keys and of values, and the regions in them by their owners."""

    def __init__(self, device: Device, cache: LayerCache) -> None:
        self._device = device
        self.cache = cache
        self.buffers: tuple[Buffer, ...] = ()
        self.slots = 0
        self.regions: dict[Owner, Region] = {}
        self._unit = SLICE_ALIGNMENT // gcd(SLICE_ALIGNMENT, cache.shape.slot_bytes)

    def slices(self, owner: Owner) -> Iterator[BufferSlice]:
        """Return what an owner has of the keys, and of the values."""
        region, size = self.regions[owner], self.cache.shape.slot_bytes
        for buffer in self.buffers:
            yield BufferSlice(buffer, region.first * size, region.slots * size)

    def begin(self, owner: Owner, slots: int) -> None:
        """Make the buffers, for a first owner."""
        self.buffers, self.slots = self._create(slots), slots
        self.regions[owner] = Region(0, slots)

    def extend(self, owner: Owner, slots: int) -> bool:
        """Give an owner a region of more slots where there is room; tell whether there is.

        One that has a region keeps its beginning.
        """
        others = [region for each, region in self.regions.items() if each is not owner]
        own = self.regions.get(owner)
        places = [0, *(self._aligned(region.end) for region in others)]
        for first in sorted(places) if own is None else [own.first]:
            wanted = Region(first, slots)
            is_free = all(r.end <= wanted.first or wanted.end <= r.first for r in others)
            if is_free and wanted.end <= self.slots:
                self.regions[owner] = wanted
                return True
        return False

    async def replace(self, what: str, owner: Owner | None = None, slots: int = 0) -> int:
        """Make new buffers that have just what is needed, `slots` for `owner`; copy all regions.

        Returns the bytes of the old ones. `what` is for messages. The copies run after all that was
        submitted before. Raises OutOfMemoryError, DeviceLostError, and ValidationError where the
        owner was freed meanwhile; all is as it was then.
        """
        made: tuple[Buffer, ...] = ()
        layout = self._layout(owner, slots)
        n_slots = _end(layout)
        if len(layout) > 1:
            self._require_binding(n_slots, what)
        try:
            async with self._device.check(what):
                made = self._create(n_slots)
            if not self.regions or (owner is not None and owner.is_freed):
                raise ValidationError("The KV cache was freed while it grew.")
        except BaseException:
            destroy_buffers(made)
            raise
        # Who gave up a region meanwhile left its room.
        layout, old, size = self._layout(owner, slots), self.buffers, self.cache.shape.slot_bytes
        for source, target in zip(old, made, strict=True):
            for each, region in self.regions.items():
                to, begin = layout[each].first * size, region.first * size
                self._device.copy_buffer(source, target, region.slots * size, to, begin)
        self.regions, self.buffers, self.slots = layout, made, n_slots
        destroy_buffers(old)
        return sum(buffer.nbytes for buffer in old)

    @property
    def is_compact(self) -> bool:
        """Whether new buffers would be no smaller."""
        return _end(self._layout(None, 0)) == self.slots

    def _layout(self, owner: Owner | None, slots: int) -> dict[Owner, Region]:
        """Return regions one behind the other, that of `owner` with so many slots."""
        sizes = {each: region.slots for each, region in self.regions.items()}
        if owner is not None:
            sizes[owner] = slots
        layout: dict[Owner, Region] = {}
        first = 0
        for each, size in sizes.items():
            layout[each] = Region(first, size)
            first = self._aligned(first + size)
        return layout

    def _aligned(self, slot: int) -> int:
        return -(-slot // self._unit) * self._unit

    def _require_binding(self, slots: int, what: str) -> None:
        """Raise OutOfMemoryError where this is more than a kernel can bind."""
        limits, nbytes = self._device.limits, slots * self.cache.shape.slot_bytes
        most = min(limits.max_buffer_size, limits.max_storage_buffer_binding_size)
        if nbytes > most:
            raise OutOfMemoryError(
                f"The GPU has no buffers of {nbytes:,} bytes, only of {most:,}, for {what}."
            )

    def _create(self, slots: int) -> tuple[Buffer, ...]:
        made: list[Buffer] = []
        try:
            for name in self.cache.names:
                nbytes = slots * self.cache.shape.slot_bytes
                made.append(self._device.create_buffer(nbytes, name))
        except BaseException:
            destroy_buffers(made)
            raise
        return tuple(made)

    def copy(self, source: Owner, target: Owner, slots: int, scratch: Buffer) -> None:
        """Copy the first slots of an owner to another, by way of a buffer of any size.

        WebGPU does not copy within a buffer.
        """
        copy, total = self._device.copy_buffer, slots * self.cache.shape.slot_bytes
        for ours, theirs in zip(self.slices(source), self.slices(target), strict=True):
            for begin in range(0, total, scratch.nbytes):
                nbytes = min(scratch.nbytes, total - begin)
                copy(ours.buffer, scratch, nbytes, 0, ours.offset + begin)
                copy(scratch, theirs.buffer, nbytes, theirs.offset + begin)

    def release(self, owner: Owner) -> None:
        """Take an owner's region back; the last one's takes the buffers along."""
        self.regions.pop(owner, None)
        if not self.regions:
            destroy_buffers(self.buffers)
            self.buffers, self.slots = (), 0


class CachePool:
    """The pools of all layers.

    `version` changes with the buffers and regions, over which programs have to be recorded anew
    then. One sequence grows at a time, which holds `growing`.
    """

    def __init__(self, device: Device, caches: Sequence[LayerCache]) -> None:
        self.device = device
        self.layers = [LayerPool(device, cache) for cache in caches]
        self.version = 0
        self.growing = asyncio.Lock()

    @property
    def buffers(self) -> Mapping[str, Buffer]:
        """The buffers of all sequences together, by name."""
        return {
            name: buffer
            for layer in self.layers
            for name, buffer in zip(layer.cache.names, layer.buffers, strict=True)
        }

    def begin(self, owner: Owner, rooms: Sequence[int]) -> None:
        """Make the buffers for a first owner, with so many slots a layer, inside a `check`."""
        try:
            for layer, slots in zip(self.layers, rooms, strict=True):
                layer.begin(owner, slots)
        except BaseException:
            self.release(owner)
            raise

    async def place(self, layer: LayerPool, owner: Owner, slots: int, what: str) -> int:
        """Give an owner a region of so many slots in a layer; return the bytes that it replaced.

        Raises what `LayerPool.replace` does.
        """
        replaced = 0
        if not layer.extend(owner, slots):
            replaced = await layer.replace(what, owner, slots)
        self.version += 1
        return replaced

    async def compact(self) -> None:
        """Free what given up regions have left, as far as there is memory for the copies."""
        async with self.growing:
            for layer in self.layers:
                if layer.regions and not layer.is_compact:
                    try:
                        await layer.replace("moving the KV cache together")
                    except OutOfMemoryError:
                        continue
                    self.version += 1

    async def scratch(self) -> Buffer:
        """Return a buffer for `LayerPool.copy`. Raises OutOfMemoryError and DeviceLostError."""
        nbytes = min(_SCRATCH_BYTES, max(buffer.nbytes for buffer in self.buffers.values()))
        made: list[Buffer] = []
        try:
            async with self.device.check("making room to copy a KV cache"):
                made.append(self.device.create_buffer(nbytes, "copied keys or values"))
        except BaseException:
            destroy_buffers(made)
            raise
        return made[0]

    def release(self, owner: Owner) -> None:
        """Take back what an owner has."""
        owner.is_freed = True
        for layer in self.layers:
            layer.release(owner)


def _end(layout: Mapping[Owner, Region]) -> int:
    return max(region.end for region in layout.values())
