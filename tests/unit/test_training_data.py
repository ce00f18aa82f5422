"""Training data of the embedded model: templates are deterministic, held-out rows stay out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

TRAINING = Path(__file__).parents[2] / "web" / "models" / "training"


@pytest.fixture(scope="module")
def training_path() -> Iterator[None]:
    """The modules of the training folder import each other by their plain names."""
    sys.path.insert(0, str(TRAINING))
    yield
    sys.path.remove(str(TRAINING))


@pytest.fixture(scope="module")
def templates(training_path: None) -> ModuleType:
    import templates

    return templates


@pytest.fixture(scope="module")
def corpus(training_path: None) -> ModuleType:
    import corpus

    return corpus


def test_the_same_seed_gives_the_same_conversations(templates: ModuleType) -> None:
    first = list(templates.conversations(300, seed=5))
    assert first == list(templates.conversations(300, seed=5))
    assert first != list(templates.conversations(300, seed=6))


def test_conversations_alternate_and_end_with_an_answer(templates: ModuleType) -> None:
    for messages in templates.conversations(2000, seed=1):
        roles = [message["role"] for message in messages if message["role"] != "system"]
        assert set(roles[0::2]) <= {"user", "tool"}
        assert set(roles[1::2]) == {"assistant"}
        assert roles[-1] == "assistant"
        assert all(message["content"] for message in messages)


def test_tool_calls_are_json_that_names_an_offered_tool(templates: ModuleType) -> None:
    calls = 0
    for messages in templates.conversations(3000, seed=2):
        for message in messages:
            content = message["content"]
            if message["role"] != "assistant" or not content.startswith("<tool_call>"):
                continue
            body = content.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
            call = json.loads(body)
            assert f'"name": "{call["name"]}"' in messages[0]["content"]
            assert all(f'"{key}"' in messages[0]["content"] for key in call["arguments"])
            calls += 1
    assert calls > 100


def test_sums_are_right(templates: ModuleType) -> None:
    import random

    rng = random.Random(3)
    checked = 0
    for _ in range(500):
        _, answer = templates.arithmetic(rng)
        equation = answer.split(". ")[0]
        if "=" in equation:
            left, right = equation.split(" = ")
            first, sign, second = left.split()
            expected = int(first) - int(second) if sign == "-" else int(first) + int(second)
            assert int(right) == expected
            checked += 1
    assert checked > 300


def test_a_row_is_recognised_in_any_file(corpus: ModuleType) -> None:
    text = "Once upon a time there was a little bear. " * 10
    answer = {"role": "assistant", "content": text}
    chat = {"messages": [{"role": "user", "content": "A story!"}, answer]}
    assert corpus.keys_of({"text": text.upper()}) & corpus.keys_of(chat)
    assert not corpus.keys_of({"text": "Another story."}) & corpus.keys_of(chat)


def test_only_answers_are_marked_for_the_loss(corpus: ModuleType) -> None:
    pieces = corpus.render(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    )
    assert "".join(text for text, _ in pieces) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
    )
    assert [text for text, spoken in pieces if spoken] == ["Hello!<|im_end|>"]


def test_rows_are_packed_whole_and_start_with_a_document(corpus: ModuleType) -> None:
    np = pytest.importorskip("numpy")
    sizes = [5, 30, 12, 40, 8] * 200
    documents = [
        corpus.Document(
            np.arange(size, dtype=np.uint16) + 1, np.full(size, corpus.FULL, dtype=np.uint8)
        )
        for size in sizes
    ]
    rows, weights = corpus.pack(iter(documents), 65, end=0)
    assert rows.shape == weights.shape and rows.shape[1] == 65
    assert (rows[:, 0] == 1).all()
    assert ((rows == 0) == (weights == 0)).all()


def test_held_out_rows_are_not_in_the_training_rows(corpus: ModuleType) -> None:
    if not corpus.DEFAULT_CORPUS.exists():
        pytest.skip("no corpus beside the repository")
    rows = corpus.split(corpus.DEFAULT_CORPUS)
    assert len(rows.held_stories) == len(rows.held_chats) == corpus.HELD_OUT
    held = set().union(*map(corpus.keys_of, rows.held_stories + rows.held_chats))
    assert not any(corpus.keys_of(row) & held for row in rows.stories + rows.chats)
    again = corpus.split(corpus.DEFAULT_CORPUS)
    assert again.held_chats == rows.held_chats and again.held_stories == rows.held_stories
