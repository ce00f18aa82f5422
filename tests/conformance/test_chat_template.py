"""Chat templates against transformers: stored texts always, the library itself where it is."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from py_engine.conversation.jinja_template import ChatTemplate
from py_engine.errors import ChatTemplateError
from tests.support.chat_template_cases import (
    CONVERSATIONS,
    EXPECTED_FILE,
    TEMPLATES,
    TOKENS,
    render_with_transformers,
)

EXPECTED: dict[str, dict[str, str | None]] = json.loads(EXPECTED_FILE.read_text())
CASES = [(template, title) for template in TEMPLATES for title in CONVERSATIONS]


def render(template: str, conversation: dict[str, Any]) -> str | None:
    arguments = dict(conversation)
    messages = arguments.pop("messages")
    try:
        return ChatTemplate({"default": template}, TOKENS).pieces(messages, **arguments)[0]
    except ChatTemplateError:
        return None


@pytest.mark.parametrize(("template", "title"), CASES)
def test_rendered_text_equals_the_stored_text(template: str, title: str) -> None:
    assert render(TEMPLATES[template], CONVERSATIONS[title]) == EXPECTED[template][title]


@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="needs transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("template", "title"), CASES)
def test_rendered_text_equals_transformers(template: str, title: str) -> None:
    ours = render(TEMPLATES[template], CONVERSATIONS[title])
    assert ours == render_with_transformers(TEMPLATES[template], CONVERSATIONS[title])


def test_every_template_renders_and_some_refuse() -> None:
    for texts in EXPECTED.values():
        assert sum(text is not None for text in texts.values()) >= 3
    assert EXPECTED["inst_alternating"]["wrong order"] is None
