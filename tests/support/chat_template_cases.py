"""Chat templates, and the prompts to render with them.

llama3.1, qwen2.5 and qwen3 are those of the models, as npm's `@huggingface/ollama-utils` 0.0.18 has
them (MIT); the others are written in the style of model families.

`python -m tests.support.chat_template_cases` renders them with transformers and writes
tests/conformance/data/chat_templates.json, so that a machine without transformers can compare.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "conformance" / "data"
EXPECTED_FILE = DATA / "chat_templates.json"
TEMPLATES = {path.stem: path.read_text() for path in sorted((DATA / "chat_templates").glob("*"))}

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

SYSTEM = {"role": "system", "content": "You speak like a pirate. <&'\">"}
USER = {"role": "user", "content": "  Who are you?\n"}
REPLY = {"role": "assistant", "content": "I am <b>Jack</b>, çà et là. 🙂"}
AGAIN = {"role": "user", "content": "And who am I?"}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a <city> — now",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["°C", "°F"]}},
            "required": ["city"],
        },
    },
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Köln"}},
        }
    ],
}
CALLS = {"role": "assistant", "content": "I look.", "tool_calls": CALL["tool_calls"] * 2}
RESULT = {"role": "tool", "tool_call_id": "1", "content": '{"temperature": 7}'}
THOUGHT = {"role": "assistant", "content": "4", "reasoning_content": "\n2 + 2\n"}
OLD_THOUGHT = {"role": "assistant", "content": "<think>2 + 2</think>\n\n4"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image"}]}

CONVERSATIONS: dict[str, dict[str, Any]] = {
    "user": {"messages": [USER]},
    "no generation prompt": {"messages": [USER, REPLY], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, USER]},
    "rounds": {"messages": [SYSTEM, USER, REPLY, AGAIN]},
    "wrong order": {"messages": [USER, USER]},
    "tools": {"messages": [SYSTEM, USER, CALL, RESULT], "tools": [TOOL]},
    "tools without a system message": {"messages": [USER], "tools": [TOOL, TOOL]},
    "several calls": {
        "messages": [USER, CALLS, RESULT, RESULT, REPLY, AGAIN],
        "tools": [TOOL],
        "enable_thinking": False,
    },
    "thought": {"messages": [USER, THOUGHT, AGAIN]},
    "thinking field": {"messages": [USER, {**REPLY, "thinking": "why"}]},
    "old thought": {"messages": [USER, OLD_THOUGHT, AGAIN], "enable_thinking": False},
    "parts": {"messages": [PARTS]},
    "unknown role": {"messages": [{"role": "skip", "content": "?"}, USER]},
}


def render_with_transformers(template: str, conversation: dict[str, Any]) -> str | None:
    """Return the text that transformers renders, or None where it raises."""
    from transformers.utils.chat_template_utils import render_jinja_template

    arguments = {"add_generation_prompt": True, **TOKENS, **conversation}
    messages = arguments.pop("messages")
    try:
        return str(render_jinja_template([messages], chat_template=template, **arguments)[0][0])
    except Exception:
        return None


def main() -> None:
    """Write the expected texts."""
    expected = {
        name: {
            title: render_with_transformers(template, conversation)
            for title, conversation in CONVERSATIONS.items()
        }
        for name, template in TEMPLATES.items()
    }
    text = json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True)
    EXPECTED_FILE.write_text(text + "\n")


if __name__ == "__main__":
    main()
