"""A vision tower on the GPU, and the rows that it has made of images.

The rows of the images that were used last stay in one buffer of slots, from which prefill takes
them. What the tower works in is on the GPU only while it encodes.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

from py_engine.errors import LimitSupportError
from py_engine.gpu.memory import destroy_buffers
from py_engine.gpu.types import Buffer, Device, Dispatch, Kernel, KernelSpec, Limits, Program
from py_engine.kernels.vision import IMAGE_BYTES
from py_engine.kernels.wgsl import STATE_WORDS
from py_engine.models.images import HeldImage, HostImage
from py_engine.models.vision_spec import VisionSpec
from py_engine.models.vision_steps import PROJECTOR, Stage

_STATE_BYTES = 4 * len(STATE_WORDS)


def activation_sizes(spec: VisionSpec) -> dict[str, int]:
    """Return the bytes of what a tower works in, but for the pixels of an image and their rows."""
    hidden = spec.hidden_size
    words = {
        "patches": spec.patch_columns * spec.n_patches,
        "x": hidden * spec.n_patches,
        "normed": hidden * spec.n_patches,
        "qkv": 3 * hidden * spec.n_patches,
        "attended": hidden * spec.n_patches,
        "activated": spec.inner_columns * spec.n_patches,
        "spans": 2 * spec.n_patches,
        "pooled": hidden * spec.n_tokens,
        "embedded": spec.output_size * spec.n_tokens,
    }
    sizes = {name: 4 * size for name, size in words.items()}
    return {
        **sizes,
        "state": _STATE_BYTES,
        f"{PROJECTOR}state": _STATE_BYTES,
        "image": IMAGE_BYTES,
    }


def require_tower_fits(spec: VisionSpec, limits: Limits) -> None:
    """Raise LimitSupportError unless the GPU can bind all that a tower works in."""
    most = min(limits.max_storage_buffer_binding_size, limits.max_buffer_size)
    name, nbytes = max(activation_sizes(spec).items(), key=lambda item: item[1])
    if nbytes > most:
        raise LimitSupportError(
            f"Images of {spec.image_size} pixels a side need {nbytes:,} bytes for the buffer "
            f"'{name}', but a buffer of this GPU has at most {most:,}. Choose a smaller model."
        )


class VisionTower:
    """A tower of `spec`; implements `VisionModel`.

    `weights` are the buffers that its steps name and `rows` has `n_slots` slots of an image's rows;
    the decoder, which they belong to, frees them. Ids of images begin at `first_id`.
    """

    def __init__(
        self,
        device: Device,
        spec: VisionSpec,
        stages: Sequence[Stage],
        kernels: Mapping[KernelSpec, Kernel],
        weights: Mapping[str, Buffer],
        rows: Buffer,
        first_id: int,
    ) -> None:
        self.spec = spec
        self.n_encoded = 0
        self._device = device
        self._stages = stages
        self._kernels = kernels
        self._weights = weights
        self._rows = rows
        self._row_bytes = 4 * spec.output_size
        self._first_id = first_id
        self._numbers: dict[str, int] = {}
        self._held: WeakValueDictionary[int, HeldImage] = WeakValueDictionary()
        # Numbers of images to their slots, those used last at the end.
        self._slots: dict[int, int] = {}
        n_slots = rows.nbytes // (self._row_bytes * spec.n_tokens)
        self._free = list(reversed(range(n_slots)))

    def hold(self, image: HostImage) -> HeldImage:
        """Make an image known."""
        number = self._numbers.setdefault(image.digest, len(self._numbers))
        held = self._held.get(number)
        if held is None:
            first = self._first_id + number * self.spec.n_tokens
            held = HeldImage(image, range(first, first + self.spec.n_tokens))
            self._held[number] = held
        return held

    def is_within_image(self, token_ids: Sequence[int], index: int) -> bool:
        """Return whether ids `index` - 1 and `index` are of the same image."""
        place = token_ids[index] - self._first_id
        return place >= 0 and place % self.spec.n_tokens > 0

    async def place(self, token_ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Bring the images of a chunk into slots.

        Returns the ids with others in the place of images', which any table has, and for each
        token 0, or 1 and the number of its image's row.
        Raises OutOfMemoryError, ValidationError or DeviceLostError.
        """
        n_tokens, first_id = self.spec.n_tokens, self._first_id
        numbers = dict.fromkeys((i - first_id) // n_tokens for i in token_ids if i >= first_id)
        for number in numbers:
            if number in self._slots:
                self._slots[number] = self._slots.pop(number)
        for number in numbers:
            if number not in self._slots:
                await self._fill_slot(number)
        places = [self._place(token_id) for token_id in token_ids]
        return [0 if place else i for i, place in zip(token_ids, places, strict=True)], places

    def _place(self, token_id: int) -> int:
        if token_id < self._first_id:
            return 0
        number, row = divmod(token_id - self._first_id, self.spec.n_tokens)
        return 1 + self._slots[number] * self.spec.n_tokens + row

    async def _fill_slot(self, number: int) -> None:
        if not self._free:
            self._free.append(self._slots.pop(next(iter(self._slots))))
        await self._encode(self._held[number].image, self._free[-1])
        self._slots[number] = self._free.pop()

    async def _encode(self, image: HostImage, slot: int) -> None:
        spec, device = self.spec, self._device
        sizes = activation_sizes(spec) | {
            "pixels": 4 * image.width * image.height,
            "rows": 4 * spec.image_size * image.height,
        }
        own: dict[str, Buffer] = {}
        try:
            async with device.check("encoding an image"):
                for name, nbytes in sizes.items():
                    own[name] = device.create_buffer(nbytes, f"vision {name}")
                self._write_inputs(own, image)
                rows = {
                    "pixels": image.height,
                    "patches": spec.n_patches,
                    "embedded": spec.n_tokens,
                }
                for stage in self._stages:
                    program = self._program(stage, own)
                    program.set_n_tokens(rows[stage.rows])
                    program.submit()
                nbytes = self._row_bytes * spec.n_tokens
                device.copy_buffer(own["embedded"], self._rows, nbytes, slot * nbytes)
        finally:
            destroy_buffers(own.values())
        self.n_encoded += 1

    def _write_inputs(self, own: Mapping[str, Buffer], image: HostImage) -> None:
        spec = self.spec
        for name, words in (
            ("image", array("I", [image.width, image.height, 0, 0])),
            ("state", array("I", [0, spec.n_patches, 0, 0])),
            (f"{PROJECTOR}state", array("I", [0, spec.n_tokens, 0, 0])),
            ("spans", array("I", [0, spec.n_patches] * spec.n_patches)),
        ):
            self._device.write_buffer(own[name], 0, words)
        self._device.write_buffer(own["pixels"], 0, image.pixels)

    def _program(self, stage: Stage, own: Mapping[str, Buffer]) -> Program:
        buffers = {**self._weights, **own}
        dispatches = [
            Dispatch(self._kernels[step.kernel], tuple(buffers[name] for name in step.buffers))
            for step in stage.steps
        ]
        return self._device.program(dispatches, f"vision {stage.label}")
