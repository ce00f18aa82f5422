"""Images as models take them: decoded pixels, and the ids that stand for them in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from py_engine.models.vision_spec import VisionSpec


@dataclass(frozen=True, eq=False)
class HostImage:
    """One decoded image.

    `pixels` are host bytes (as `Device.write_buffer` takes them) of height x width x 4 values,
    red, green, blue, and one that is ignored. Images with the same `digest` have equal pixels and
    sizes.
    """

    width: int
    height: int
    pixels: Any
    digest: str


@dataclass(frozen=True, eq=False)
class HeldImage:
    """An image that a model knows, and the ids that stand for it in prompts.

    They can be used as long as someone holds on to this.
    """

    image: HostImage
    ids: Sequence[int]


class VisionModel(Protocol):
    """What a language model with image input offers beside `TextModel`.

    In a prompt an image is `spec.n_tokens` ids of its own, beyond those of the vocabulary: equal
    ids are the same row of the same image, so whoever compares prompts compares images too.
    """

    @property
    def spec(self) -> VisionSpec: ...

    def hold(self, image: HostImage) -> HeldImage:
        """Make an image known."""
        ...

    def is_within_image(self, token_ids: Sequence[int], index: int) -> bool:
        """Return whether ids `index` - 1 and `index` are of the same image."""
        ...


def chunk_end(token_ids: Sequence[int], start: int, most: int, vision: VisionModel | None) -> int:
    """Return where a prompt's chunk that begins at `start` ends: no image is split.

    Chunks have at most `most` tokens, which is no less than an image has.
    """
    end = min(start + most, len(token_ids))
    while vision is not None and end < len(token_ids) and vision.is_within_image(token_ids, end):
        end -= 1
    return end
