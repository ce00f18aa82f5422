"""The fields that ask for drafts: OpenAI's `prediction`, transformers' prompt lookup."""

from __future__ import annotations

from typing import Any

import pytest

from py_engine.api.chat_completion import ChatCompletionRequest
from py_engine.api.completion import CompletionRequest
from py_engine.errors import ConfigValueError, RangeError

MESSAGES = [{"role": "user", "content": "Hello!"}]


def chat(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.from_dict({"messages": MESSAGES, **fields})


def test_without_them_there_are_none() -> None:
    assert (chat().draft_tokens, chat(prediction=None).prediction) == (0, "")


def test_a_prediction_as_text_and_in_parts() -> None:
    request = chat(prediction={"type": "content", "content": "def f():"})
    assert (request.prediction, request.draft_tokens) == ("def f():", 7)
    parts = [{"type": "text", "text": "def "}, {"type": "text", "text": "f():"}]
    assert chat(prediction={"type": "content", "content": parts}).prediction == "def f():"


def test_prompt_lookup_says_how_many() -> None:
    assert chat(prompt_lookup_num_tokens=3).draft_tokens == 3
    assert chat(extra_body={"prompt_lookup_num_tokens": 10}).draft_tokens == 10
    prediction = {"type": "content", "content": "x"}
    assert chat(prediction=prediction, prompt_lookup_num_tokens=0).draft_tokens == 0
    completion = CompletionRequest.from_dict({"prompt": "a", "prompt_lookup_num_tokens": 4})
    assert completion.draft_tokens == 4


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"prediction": "x"}, ConfigValueError, "request: prediction is"),
        ({"prediction": {"content": "x"}}, ConfigValueError, "prediction.type"),
        ({"prediction": {"type": "content"}}, ConfigValueError, "prediction.content"),
        (
            {"prediction": {"type": "content", "content": [{"type": "image", "text": "a"}]}},
            ConfigValueError,
            r"prediction.content\[0\].type",
        ),
        ({"prompt_lookup_num_tokens": -1}, RangeError, "prompt_lookup_num_tokens is -1"),
        ({"prompt_lookup_num_tokens": 1.5}, ConfigValueError, "prompt_lookup_num_tokens is 1.5"),
    ],
)
def test_wrong_values(fields: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        chat(**fields)
