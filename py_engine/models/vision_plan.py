"""The vision tower that a decoder shall have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from py_engine.gpu.types import Buffer, Device, Kernel, KernelSpec
from py_engine.models.spec import DecoderSpec
from py_engine.models.vision import VisionTower
from py_engine.models.vision_spec import VisionSpec
from py_engine.models.vision_steps import Stage


@dataclass(frozen=True)
class Vision:
    """What a vision tower is made of."""

    spec: VisionSpec
    stages: Sequence[Stage]

    def tower(
        self,
        device: Device,
        spec: DecoderSpec,
        kernels: Mapping[KernelSpec, Kernel],
        buffers: Mapping[str, Buffer],
    ) -> VisionTower:
        """Return the tower over a decoder's buffers; images' ids follow those of the vocabulary."""
        return VisionTower(
            device, self.spec, self.stages, kernels, buffers, buffers["images"], spec.vocab_size
        )
