"""Images in prompts: chunks that do not split them, their places in a text, the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from py_engine import errors
from py_engine.api.messages import checked_messages
from py_engine.conversation import ImageMarks
from py_engine.models.images import chunk_end
from py_engine.rpc.images import put_images, without_images

IMAGE = 1921


class Vision:
    """Knows images of `IMAGE` ids from 1000 on."""

    def is_within_image(self, token_ids: Sequence[int], index: int) -> bool:
        place = token_ids[index] - 1000
        return place >= 0 and place % IMAGE > 0


def lengths(parts: Sequence[int | str], most: int) -> list[int]:
    """Return the chunks of a prompt: numbers of text tokens, and "image"."""
    ids: list[int] = []
    for number, part in enumerate(parts):
        first = 1000 + number * IMAGE
        ids += range(first, first + IMAGE) if part == "image" else [5] * int(part)
    found, start = [], 0
    while start < len(ids):
        end = chunk_end(ids, start, most, Vision())  # type: ignore[arg-type]
        found.append(end - start)
        start = end
    return found


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([200, "image", 10], [200, 1931]),
        (["image"], [1921]),
        (["image", "image"], [1921, 1921]),
        ([4097], [2048, 2048, 1]),
        (["image", 2300, "image"], [2048, 2048, 2046]),
        (["image", 127, "image"], [2048, 1921]),
    ],
    ids=str,
)
def test_c8_images_are_not_split(parts: list[Any], expected: list[int]) -> None:
    assert lengths(parts, 2048) == expected


def user(url: Any, **more: Any) -> list[dict[str, Any]]:
    parts = [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": url, **more}},
    ]
    return [{"role": "user", "content": parts}]


def test_a_content_with_images_stays_in_parts() -> None:
    picture = object()
    for url in ("data:image/png;base64,AA", "https://example.org/a.png", picture):
        (message,) = checked_messages(user(url, detail="high"), takes_images=True)
        assert message["content"] == [
            {"type": "text", "text": "What?"},
            {"type": "image", "image": url},
        ]
    assert checked_messages([{"role": "user", "content": "x"}], takes_images=True) == [
        {"role": "user", "content": "x"}
    ]


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (user("file:///a.png"), errors.UnsupportedImageURLError),
        (user(None), errors.UnsupportedImageURLError),
        (user("data:image/png,", detail="best"), errors.UnsupportedDetailError),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png,"}]}],
            errors.ContentTypeError,
        ),
        (
            [{**user("data:image/png,")[0], "role": "system"}, {"role": "user", "content": "x"}],
            errors.UserMessageContentErrorForNonVLM,
        ),
    ],
    ids=str,
)
def test_wrong_images_are_named(messages: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"messages\[0\]\.content\[\d\]"):
        checked_messages(messages, takes_images=True)


def test_a_prompt_has_the_tokens_of_gemmas_processor() -> None:
    marks = ImageMarks("<b>", "<s>", "<e>", 7)
    assert marks.put_into("x\n<b>y<b>") == "x\n\n\n<b><s><e>\n\ny\n\n<b><s><e>\n\n"


def test_objects_travel_beside_the_request() -> None:
    picture = object()
    request = {"model": "m", "messages": [{"role": "system", "content": "x"}, *user(picture)]}
    plain, attachments = without_images(request)
    assert attachments == [("1.1", picture)]
    assert plain["messages"][1]["content"][1]["image_url"] == {"url": None}
    put_images(plain, attachments)
    assert plain == request
    with pytest.raises(errors.MessageFormatError, match=r"'1\.9'"):
        put_images(plain, [("1.9", picture)])


def test_a_request_without_objects_stays_as_it_is() -> None:
    request = {"messages": user("data:image/png;base64,AA"), "prompt": "x"}
    assert without_images(request) == (request, [])
    assert without_images({"input": "x"}) == ({"input": "x"}, [])
