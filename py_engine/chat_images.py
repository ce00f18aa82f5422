"""The images of a chat request: loaded, and made known to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from py_engine.conversation import ImageMarks
from py_engine.errors import (
    ContextWindowSizeExceededError,
    ModelFileFormatError,
    PrefillChunkSizeSmallerThanImageError,
    UserMessageContentErrorForNonVLM,
)
from py_engine.loaded_model import LoadedModel
from py_engine.models.images import HeldImage, VisionModel

Message = dict[str, Any]


def images_of(messages: Sequence[Message]) -> list[Any]:
    """Return the URLs or objects of all images, in their order."""
    return [
        part["image"]
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image"
    ]


def for_template(messages: Sequence[Message]) -> list[Message]:
    """Return messages as templates have them, where an image is only a mark."""
    return [
        {**message, "content": [_part(part) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in messages
    ]


def _part(part: Message) -> Message:
    return {"type": "image"} if part["type"] == "image" else part


async def load_images(model: LoadedModel, messages: Sequence[Message]) -> list[HeldImage]:
    """Return the images of checked messages, each known to the model.

    Errors: UserMessageContentErrorForNonVLM, PrefillChunkSizeSmallerThanImageError,
    ContextWindowSizeExceededError for more images than fit, ImageError.
    """
    sources = images_of(messages)
    if not sources:
        return []
    vision = _vision(model, len(sources))
    return [
        vision.hold(await model.host.load_image(source, f"image {number + 1} of the messages"))
        for number, source in enumerate(sources)
    ]


def _vision(model: LoadedModel, n_images: int) -> VisionModel:
    vision, config = model.vision, model.config
    if vision is None:
        raise UserMessageContentErrorForNonVLM(
            f"The messages have {n_images} images, but this model takes text only. Leave them out, "
            "or choose a model that takes images."
        )
    each = vision.spec.n_tokens
    if each > model.prefill_chunk_size:
        raise PrefillChunkSizeSmallerThanImageError(
            f"An image has {each} tokens, but prefill_chunk_size is {model.prefill_chunk_size}. "
            f"Set it to at least {each} in chat_opts."
        )
    if each * n_images > config.context_window_size > 0:
        raise ContextWindowSizeExceededError(
            f"{n_images} images have {each * n_images} tokens, but context_window_size is "
            f"{config.context_window_size}. Leave some of them out."
        )
    return vision


def image_marks(model: LoadedModel) -> ImageMarks | None:
    """Return how a model's template has images; None where it takes none.

    Raises ModelFileFormatError where the tokenizer lacks their tokens.
    """
    if model.vision is None:
        return None
    spec = model.vision.spec
    texts = [model.tokenizer.token(i) for i in (spec.begin_id, spec.soft_id, spec.end_id)]
    begin, soft, end = (text or "" for text in texts)
    if not (begin and soft and end):
        raise ModelFileFormatError(
            f"The tokenizer has no tokens {spec.begin_id}, {spec.soft_id} and {spec.end_id}, which "
            "stand for images. Use the tokenizer of the same model."
        )
    return ImageMarks(begin, soft, end, spec.soft_id)
