"""What the extension's popup gives a model to summarise: never more than it can read."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "worker" / "extension" / "summary.py"


@pytest.fixture(scope="module")
def summary() -> ModuleType:
    """The module, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("summary", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Counter:
    """A tokenizer with tokens of so many characters, and prompts with `frame` tokens around."""

    def __init__(self, characters: int, frame: int = 10) -> None:
        self.characters = characters
        self.frame = frame
        self.counts: list[int] = []

    async def __call__(self, messages: list[dict[str, Any]]) -> int:
        [message] = messages
        self.counts.append(self.frame + len(message["content"]) // self.characters)
        return self.counts[-1]


@pytest.mark.parametrize("characters", [1, 4, 9])
@pytest.mark.parametrize("length", [0, 1, 500, 100_000])
def test_the_prompt_leaves_room_for_the_answer(
    summary: ModuleType, characters: int, length: int
) -> None:
    counter, text = Counter(characters), "x" * length
    cut = asyncio.run(summary.cut_to_fit(counter, "Title", text, 1024))
    limit = 1024 - summary.ANSWER_TOKENS
    assert text.startswith(cut)
    assert asyncio.run(counter(summary.summary_messages("Title", cut))) <= limit
    assert len(cut) == length or counter.counts[-1] > 0.8 * limit  # no more is cut than need be
    assert len(counter.counts) < 8


def test_nothing_is_left_where_not_even_the_title_fits(summary: ModuleType) -> None:
    assert asyncio.run(summary.cut_to_fit(Counter(1, 5000), "Title", "some text", 1024)) == ""
